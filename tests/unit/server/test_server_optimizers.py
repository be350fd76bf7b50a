"""Server optimizers against NumPy written out by hand, in runs that are resumed, and on what nobody trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from device_profiles.errors import FormatError
from device_profiles.task import Result, Task
from device_profiles.update import UpdateMetadata
from device_profiles.work import Whole, Work
from server.averaging.aggregation import ReceivedUpdate, average
from server.averaging.means import Mean, mean_of
from server.averaging.optimizers import OPTIMIZERS, create_optimizer
from server.averaging.private import NoisyMean
from server.averaging.server_step import next_tensors
from server.fleet.client import Client
from server.fleet.fleet import HeldFrozen, TrainingSettings
from server.fleet.privacy import PrivacySettings
from server.fleet.structure import Structure, TrainedTensor
from server.methods.method import Stage
from server.rounds.observer import Observer
from server.rounds.run_state import RunFolder
from server.rounds.schedule import Schedule
from server.rounds.seam import Event, Updated
from tests.support.fake_run import FakeEngine, fleet_of, run
from tests.support.partitions import blocks_of_one_unit

ETA, BETA1, BETA2, TAU = 0.3, 0.8, 0.95, 0.01


def _settings(name: str, rate: float | None = ETA) -> TrainingSettings:
    return TrainingSettings(
        server_optimizer=name,  # type: ignore[arg-type]  # one of the literals
        server_learning_rate=rate,
        server_beta1=BETA1,
        server_beta2=BETA2,
        server_tau=TAU,
    )


def _update(client: str, examples: int, **tensors: np.ndarray) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=0, program="whole", examples=examples, steps=1, base_version="v", loss_first=1.0, loss_last=1.0
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_rounds_are_those_of_the_published_algorithm(name: str) -> None:
    """Two clients with 1 and 3 examples; algorithm 2 of Reddi et al. in float64, v from tau^2."""
    generator = np.random.default_rng(1)
    optimizer = create_optimizer(_settings(name))
    weights = {"w": generator.standard_normal((4, 3), np.float32), "running_mean": np.zeros(3, np.float32)}
    expected = weights["w"].astype(np.float64)
    m, v = np.zeros((4, 3)), np.full((4, 3), TAU**2)
    for _ in range(5):
        sent = [weights["w"] + np.float32(0.1) * generator.standard_normal((4, 3), np.float32) for _ in range(2)]
        means = [generator.standard_normal(3, np.float32) for _ in range(2)]
        updates = [
            _update(client, count, w=w, running_mean=mean)
            for client, count, w, mean in zip("ab", (1, 3), sent, means, strict=True)
        ]
        delta = (sent[0].astype(np.float64) - weights["w"]) / 4 + 3 * (sent[1].astype(np.float64) - weights["w"]) / 4
        m = BETA1 * m + (1 - BETA1) * delta
        if name == "fedadam":
            v = BETA2 * v + (1 - BETA2) * delta**2
        elif name == "fedyogi":
            v = v - (1 - BETA2) * delta**2 * np.sign(v - delta**2)
        step = ETA * delta if name == "fedavg" else ETA * m / (np.sqrt(v) + TAU)
        expected = weights["w"] + step
        weights = weights | next_tensors(updates, weights, frozenset({"w"}), optimizer)
        np.testing.assert_allclose(weights["w"], expected, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(weights["running_mean"], means[0] / 4 + 3 * means[1] / 4, rtol=1e-6, atol=1e-7)
    assert sorted(optimizer.state) == ([] if name == "fedavg" else ["m.w", "v.w"])


def test_the_mean_itself_is_what_fedavg_gives_by_default() -> None:
    updates = [_update("a", 1, w=np.float32([0.1, 4])), _update("b", 3, w=np.float32([8, 0.3]))]
    base = {"w": np.float32([1, 2])}
    stepped = next_tensors(updates, base, frozenset({"w"}), create_optimizer(TrainingSettings()))
    np.testing.assert_array_equal(stepped["w"], average(updates, base)["w"])


def test_a_damped_parameter_goes_the_square_root_of_its_share_of_the_way_that_its_trainers_mean_goes() -> None:
    """One of 1 + 3 examples trained `w` and goes half of its way; `v`, which both trained, goes the whole.
    Statistics go by the share itself."""
    base = {"w": np.float32([1, 2]), "v": np.float32([0]), "running_var": np.float32([4])}
    updates = [
        _update("a", 1, w=np.float32([3, -2]), v=np.float32([8]), running_var=np.float32([0])),
        _update("b", 3, v=np.float32([4])),
    ]
    fedavg = create_optimizer(TrainingSettings())
    after = {
        rule: next_tensors(updates, base, frozenset({"w", "v"}), fedavg, held_frozen=rule)
        for rule in get_args(HeldFrozen)
    }
    assert {rule: [tensors["w"].tolist(), tensors["running_var"].tolist()] for rule, tensors in after.items()} == {
        "left-out": [[3, -2], [0]],
        "unchanged": [[1.5, 1], [3]],
        "damped": [[2, 0], [3]],
    }
    assert all(tensors["v"].tolist() == [5] for tensors in after.values())


SILENT = PrivacySettings(clip_norm=1e9, noise_multiplier=1e-30)


@pytest.mark.parametrize("mean", [mean_of(TrainingSettings(aggregation="median")), NoisyMean(SILENT)])
def test_the_damped_share_is_of_clients_where_examples_do_not_count(mean: Mean) -> None:
    base = {"w": np.float32([1])}
    fedavg = create_optimizer(TrainingSettings())
    moved = []
    for examples in (1, 10**6):
        trained, others = _update("a", examples, w=np.float32([3])), [_update(name, 5) for name in "bcd"]
        moved.append(next_tensors([trained, *others], base, frozenset({"w"}), fedavg, held_frozen="damped", mean=mean))
    assert [tensors["w"].tolist() for tensors in moved] == [[2], [2]]


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_values_that_nobody_trained_in_a_round_stay(name: str) -> None:
    optimizer = create_optimizer(_settings(name))
    base = {"w": np.ones((3, 2), np.float32)}
    whole = next_tensors([_update("a", 1, w=base["w"] + 1)], base, frozenset({"w"}), optimizer)
    narrow = _update("a", 1, w=whole["w"][:2, :1] + 1)
    after = next_tensors([narrow], whole, frozenset({"w"}), optimizer)["w"]
    moved = after != whole["w"]
    np.testing.assert_array_equal(moved, [[True, False], [True, False], [False, False]])
    rows = ReceivedUpdate(
        client="a", metadata=narrow.metadata, tensors={"w": after + 1}, rows={"w": np.array([False, False, True])}
    )
    last = next_tensors([rows], {"w": after}, frozenset({"w"}), optimizer)["w"]
    np.testing.assert_array_equal((last != after).any(axis=1), [False, False, True])


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_a_run_that_is_resumed_keeps_its_moments_to_the_bit(name: str, tmp_path: Path) -> None:
    def dies_in(attempt: int) -> FakeEngine:
        def fate(call: int, task: Task, update: ReceivedUpdate) -> ReceivedUpdate:
            if call == attempt:
                raise KeyboardInterrupt
            return update

        return FakeEngine(fate=fate)

    _, whole = run(tmp_path / "whole", FakeEngine(), rounds=3, training=_settings(name))
    folder = tmp_path / "broken"
    for attempt in (3, 2):  # within the first stage, and at the first round of the second
        with pytest.raises(KeyboardInterrupt):
            run(folder, dies_in(attempt), rounds=3, training=_settings(name))
        assert len(list((folder / "server_optimizer").glob("*"))) == (1 if attempt == 3 else 0)
    _, resumed = run(folder, FakeEngine(), rounds=3, training=_settings(name))
    assert all(np.array_equal(resumed[key], tensor) for key, tensor in whole.items())
    _, averaged = run(tmp_path / "mean", FakeEngine(), rounds=3)
    assert not np.array_equal(averaged["stage1.0.weight"], whole["stage1.0.weight"])


def test_moments_that_are_missing_are_named(tmp_path: Path) -> None:
    def stops(call: int, task: Task, update: ReceivedUpdate) -> ReceivedUpdate:
        if call == 2:
            raise KeyboardInterrupt
        return update

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, FakeEngine(fate=stops), rounds=3, training=_settings("fedyogi"))
    RunFolder(tmp_path).optimizer_path(1).unlink()
    with pytest.raises(FormatError, match=r"server_optimizer/000001\.safetensors: missing"):
        run(tmp_path, FakeEngine(), rounds=3, training=_settings("fedyogi"))


class _Digits(FakeEngine):
    """Four clients train a softmax regression on their part of the digits, an epoch a round."""

    def __init__(self) -> None:
        datasets = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
        digits = datasets.load_digits()
        self.inputs, self.labels = np.float32(digits.data / 16), digits.target
        counts = {name: len(self.labels[number::5]) for number, name in enumerate("abcd")}
        super().__init__(
            there=[Client(name=n, budget_bytes=1, needs={"whole": 1}, examples=count) for n, count in counts.items()]
        )

    def answers(self, task: Task) -> list[Event]:
        weights = load_file(task.weights)["w"]
        part = slice("abcd".index(task.client), None, 5)
        order = np.random.default_rng(task.seed).permutation(len(self.labels[part]))
        trained = weights.copy()
        for rows in np.array_split(order, len(order) // 32):
            x, labels = self.inputs[part][rows], self.labels[part][rows]
            gradient = x.T @ (_softmax(x @ trained) - np.eye(10, dtype=np.float32)[labels]) / len(rows)
            trained = trained - np.float32(task.learning_rate) * gradient
        update = _update(task.client, len(order), w=trained)
        said = msgspec.structs.replace(update.metadata, base_version=task.base_version, steps=len(order) // 32)
        result = Result(client=task.client, status="ok", seconds=0.0, examples=len(order))
        return [Updated(task=task.key, result=result, update=dataclasses.replace(update, metadata=said))]

    def evaluate(self, work: Work, weights: Path, *, full: bool = False) -> tuple[float, float]:
        answers = (self.inputs[4::5] @ load_file(weights)["w"]).argmax(1)
        return float((answers == self.labels[4::5]).mean()), 0.0


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_digits_are_learned(name: str, tmp_path: Path) -> None:
    work = Whole()
    roles = {"w": TrainedTensor(shape=(64, 10), role="parameter")}
    engine, folder = _Digits(), RunFolder(tmp_path)
    training = TrainingSettings(server_optimizer=name, rounds=12, epochs=1, learning_rate=0.05)  # type: ignore[arg-type]
    schedule = Schedule(
        fleet=fleet_of(training=training),
        stages=[Stage(name="train", block=0, choices=(work,), evaluated=work, rounds=12)],
        structure=Structure(
            model=("w",), partition=blocks_of_one_unit(1), blocks=(frozenset({"w"}),), trained={work: roles}
        ),
        engine=engine,
        evaluator=engine,
        folder=folder,
        observer=Observer(),
    )
    state, _ = schedule.run(*folder.load_or_start("settings", lambda: {"w": np.zeros((64, 10), np.float32)}))
    assert state.steps[0].accuracy > 0.8
