"""Updates that moved against the others of their round: cosines are those of the definition, however many there are."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from device_profiles.update import UpdateMetadata
from device_profiles.work import Grow
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.structure import Structure, TrainedTensor
from server.judging.outliers import OPPOSED_COSINE, OPPOSED_FACTOR, outliers
from tests.support.partitions import blocks_of_one_unit

WORK = Grow(first_unit=0, last_unit=0)
PARAMETERS = 200
START = {"w": np.zeros(PARAMETERS, np.float32)}
STRUCTURE = Structure(
    model=("w",),
    blocks=(frozenset({"w"}),),
    partition=blocks_of_one_unit(1),
    trained={WORK: {"w": TrainedTensor(shape=(PARAMETERS,), role="parameter")}},
)


def _update(client: str, move: np.ndarray) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=1, program="p", examples=10, steps=1, base_version="v", loss_first=1.0, loss_last=1.0
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors={"w": move.astype(np.float32)})


def _defined(moves: np.ndarray) -> dict[int, float]:
    """Who must be rejected, with its cosine: the definition, one update after the other."""
    lengths = np.linalg.norm(moves, axis=1)
    median = float(np.median(lengths))
    short = moves * np.minimum(1.0, median / lengths)[:, None]
    found = {}
    for i, own in enumerate(short):
        others = np.delete(short, i, axis=0).sum(axis=0)
        cosine = float(own @ others / (np.linalg.norm(own) * np.linalg.norm(others)))
        if cosine < OPPOSED_COSINE or (cosine < 0 and lengths[i] / median > OPPOSED_FACTOR):
            found[i] = cosine
    return found


@pytest.mark.parametrize("seed", range(8))
def test_cosines_are_those_of_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    number = int(random.integers(3, 60))
    moves = random.standard_normal((number, PARAMETERS)) + random.choice([0.0, 0.3, 2.0])
    moves[random.random(number) < 0.2] *= random.choice([-1.0, -4.0, 4.0])
    expected = _defined(moves)
    said = outliers(
        [_update(f"{i:03}", move) for i, move in enumerate(moves)],
        {f"{i:03}": WORK for i in range(number)},
        STRUCTURE,
        START,
    )
    found = {}
    for client, reason in said.items():
        match = re.fullmatch(
            r"moved against the others of its round \(cosine (-\d\.\d\d), \d+\.\d times as far\)", reason
        )
        assert match, reason
        found[int(client)] = float(match[1])
    assert found == pytest.approx(expected, abs=6e-3)


def test_others_that_cancel_each_other_say_nothing() -> None:
    one = np.random.default_rng(0).standard_normal(PARAMETERS)
    updates = [_update("a", one), _update("b", -one), _update("c", np.roll(one, 1))]
    assert "c" not in outliers(updates, dict.fromkeys("abc", WORK), STRUCTURE, START)


def test_two_thousand_updates_are_held_against_each_other_in_seconds() -> None:
    moves = np.random.default_rng(0).standard_normal((2000, PARAMETERS)) + 1.0
    updates = [_update(f"{i:04}", move) for i, move in enumerate(moves)]
    works = {update.client: WORK for update in updates}
    started = time.process_time()
    assert outliers(updates, works, STRUCTURE, START) == {}
    # One by one, sums over a matrix of all updates took a minute.
    assert time.process_time() - started < 10
