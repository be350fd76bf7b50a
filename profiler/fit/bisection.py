"""Find the largest batch, and its cheapest variant, that trains under a hard limit: by bisection, with real runs.

Among programs of one block, more examples are better; among those of one batch, the one that needs the most memory is
the cheapest, because all that variants do is to trade time for memory (recomputation, smaller micro-batches).
Whatever fits, everything that needs less fits as well, so that each question is answered with log2(n) runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from device_profiles.manifest import Program

T = TypeVar("T")


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run under the limit. `died_at_bytes` is the charge at which the kernel ended it."""

    bundle: str
    program: str
    block: int
    batch: int
    micro_batch: int
    variant: str
    fits: bool
    peak_bytes: int | None = None
    step_seconds: float | None = None
    died_at_bytes: int | None = None
    reason: str | None = None


class Fit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found for one block; `best` is None where nothing fits."""

    block: int
    limit_bytes: int
    best: Trial | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One program that could be run, and where it comes from. `need_bytes` orders candidates of the same batch."""

    origin: Path | str
    program: Program
    need_bytes: int


def largest_that_fits(ordered: Sequence[T], fits: Callable[[T], bool]) -> int | None:
    """Index of the last of `ordered` (rising needs) that fits, found by bisection; None where the first does not."""
    low, high = -1, len(ordered)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(ordered[middle]):
            low = middle
        else:
            high = middle
    return None if low < 0 else low


def find_fit(candidates: Sequence[Candidate], *, limit_bytes: int, run: Callable[[Candidate], Trial]) -> Fit:
    """Bisect the candidates of one block. `run` is called at most once for each of them."""
    block = candidates[0].program.block
    trials: dict[int, Trial] = {}

    def fits(candidate: Candidate) -> bool:
        key = id(candidate)
        if key not in trials:
            trials[key] = run(candidate)
        return trials[key].fits

    by_batch: dict[int, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: c.need_bytes):
        by_batch.setdefault(candidate.program.batch, []).append(candidate)
    batches = _worth_trying(by_batch)
    largest = largest_that_fits(batches, lambda batch: fits(by_batch[batch][0]))
    best = None
    if largest is not None:
        variants = by_batch[batches[largest]]
        index = largest_that_fits(variants, fits)
        best = trials[id(variants[index])] if index is not None else None
    return Fit(block=block, limit_bytes=limit_bytes, best=best, trials=tuple(trials.values()))


def _worth_trying(by_batch: Mapping[int, Sequence[Candidate]]) -> list[int]:
    """Batches, rising; one that needs no less than a larger one cannot be the answer. So their needs rise as well."""
    worth: list[int] = []
    for batch in sorted(by_batch, reverse=True):
        if not worth or by_batch[batch][0].need_bytes < by_batch[worth[-1]][0].need_bytes:
            worth.append(batch)
    return worth[::-1]


def find_batch(largest_batch: int, *, block: int, limit_bytes: int, run: Callable[[int], Trial]) -> Fit:
    """Bisect the batches 2..`largest_batch` where any of them can be run (PyTorch makes its programs as it goes)."""
    trials: dict[int, Trial] = {}

    def fits(batch: int) -> bool:
        trials[batch] = run(batch)
        return trials[batch].fits

    batches = range(2, largest_batch + 1)
    found = largest_that_fits(batches, fits)
    return Fit(
        block=block,
        limit_bytes=limit_bytes,
        best=None if found is None else trials[batches[found]],
        trials=tuple(trials.values()),
    )
