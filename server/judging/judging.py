"""Which updates of a round enter the average: what rounds of a run and `profl-server merge` hold them to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from device_profiles.work import Work
from server.averaging.aggregation import ReceivedUpdate, reason_to_reject
from server.fleet.structure import Structure
from server.judging.clipping import bounded
from server.judging.outliers import alone_outliers, outliers


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a client was asked for.

    Attributes:
        batch: examples in one of its steps.
        examples: that it has, None where only the client knows.
        steps: that it should train, None where only the client knows.
        share: which part they are of what others of the round are asked for: less where it had no time for all.
    """

    work: Work
    batch: int
    examples: int | None
    steps: int | None
    share: float = 1.0


def judge(
    updates: Sequence[ReceivedUpdate],
    asked: Mapping[str, Asked],
    structure: Structure,
    version: str,
    weights: Mapping[str, NDArray[Any]],
    *,
    robust: bool = True,
) -> tuple[list[ReceivedUpdate], dict[str, str]]:
    """Updates for the average, each with its share, and by client why the others are not; all started from `weights`,
    which are called `version`.

    With `robust`, updates are also held against each other: what no honest training does is rejected, what is only
    larger than the others' is cut down (`ReceivedUpdate.cut`)."""
    sent = Counter(update.client for update in updates)
    rejected = {client: "has no task in this round" for client in sent if client not in asked}
    # It is unknown which of them the client itself has sent.
    rejected |= {client: f"sent {count} updates" for client, count in sent.items() if count > 1}
    sound = []
    for update in [update for update in updates if update.client not in rejected]:
        task = asked[update.client]
        reason = reason_to_reject(update, task.work, structure, version) or _wrong_examples(task, update)
        share = _share(task, update) if reason is None else reason
        if isinstance(share, str):
            rejected[update.client] = share
        else:
            sound.append(replace(update, share=share))
    works = {client: task.work for client, task in asked.items()}
    rejected |= (outliers if robust else alone_outliers)(sound, works, structure, weights)
    accepted = [update for update in sound if update.client not in rejected]
    return bounded(accepted, works, structure, weights) if robust else accepted, rejected


def _wrong_examples(asked: Asked, update: ReceivedUpdate) -> str | None:
    """The weight of an update in the mean is not the client's to choose."""
    said = update.metadata.examples
    if asked.examples is None or said == asked.examples:
        return None
    return f"says that it has {said} examples; the fleet gave it {asked.examples}"


def _share(asked: Asked, update: ReceivedUpdate) -> float | str:
    """Which part of its work the client did, or why what it says of that cannot be."""
    if not update.metadata.stopped_early:
        return asked.share
    if asked.steps is None:
        return "stopped early, and how many steps it was asked for is not known"
    done, whole = update.metadata.examples_done, asked.steps * asked.batch
    if done is None:
        return "stopped early without saying how many examples it trained on"
    if not 0 < done <= whole:
        return f"stopped early and says that it trained on {done} examples of {whole}"
    return asked.share * done / whole
