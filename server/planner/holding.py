"""What the clients of a fleet make of one step: who trains which of its units, and how long that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

SLOWEST = 0.9
"""A round is taken to last as long as that of the client that is slower than this share of those with work."""

Bytes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Clients that need the same bytes for the same work, such as those of one kind of device.

    Attributes:
        budgets: what they may use, in bytes; each value once, rising.
        counts: how many clients have each of these budgets.
        needs: promised bytes by the last unit e of a step: [e + 2], of the suffix from unit 0, from unit 1, ... from
            unit e, and of the output module alone.
        tried: bytes of each variant of the same work, in the order in which they are tried; those of `needs` where
            there are no variants.
        seconds: of a round in each of them; empty where nobody knows.
        below: how many clients have less than each budget, and at its end how many there are; made of `counts` once.
    """

    budgets: Bytes
    counts: NDArray[np.int64]
    needs: Mapping[int, Bytes]
    tried: Mapping[int, Bytes]
    seconds: Mapping[int, NDArray[np.float64]]
    below: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        """Sum up once what every step asks for."""
        object.__setattr__(self, "below", np.concatenate([[0], np.cumsum(self.counts)]))

    @classmethod
    def of(
        cls,
        budgets: Sequence[int] | Bytes,
        needs: Mapping[int, Sequence[int]],
        seconds: Mapping[int, Sequence[float]] | None = None,
        *,
        tried: Mapping[int, Sequence[int]] | None = None,
    ) -> Group:
        """From one budget a client, in any order."""
        values, counts = np.unique(np.asarray(budgets, np.int64), return_counts=True)
        return cls(
            budgets=values,
            counts=counts,
            needs={end: np.asarray(row, np.int64) for end, row in needs.items()},
            tried={end: np.asarray(row, np.int64) for end, row in (needs if tried is None else tried).items()},
            seconds={end: np.asarray(row, np.float64) for end, row in (seconds or {}).items()},
        )

    @property
    def clients(self) -> int:
        """How many they are."""
        return int(self.counts.sum())

    def holding(self, end: int) -> NDArray[np.int64]:
        """Clients by what they do in the step that ends with unit `end`, [end + 3]: train from unit 0, from unit 1, ...
        from unit `end`, the output module alone, nothing."""
        return self._first_held(self.needs[end])

    def timed(self, end: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Seconds of a round in each variant of what there is to do in the step that ends with unit `end`, and how many
        clients do that."""
        return self.seconds[end], self._first_held(self.tried[end])[:-1]

    def _first_held(self, needs: Bytes) -> NDArray[np.int64]:
        """Clients by the first of `needs` [k] that they hold, and how many hold none; [k + 1]."""
        least = np.minimum.accumulate(needs)
        # Looked up among the budgets, of which there may be a million, rather than each of them among the needs.
        able = self.below[-1] - self.below[np.searchsorted(self.budgets, least, side="left")]
        holding: NDArray[np.int64] = np.diff(able, prepend=0, append=self.below[-1])
        return holding


def first_held(needs: Bytes, budgets: Bytes) -> NDArray[np.int64]:
    """For each budget [n], the position of the first of `needs` [k] within it, k where there is none; [n]."""
    least = np.minimum.accumulate(needs)
    # The first position whose running minimum is within the budget is the first that is within it by itself.
    return np.searchsorted(-least, -budgets, side="left")


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: it ends with unit `last_unit`.

    Attributes:
        coverage: share of the clients that train each unit from 0 to `last_unit`.
        clients: how many there are, and `working`, how many of them have any work.
        seconds: predicted for a round, None where nobody knows.
        rounds: that the step has at most, None where that is not planned.
    """

    last_unit: int
    coverage: tuple[float, ...]
    clients: int
    working: int
    seconds: float | None = None
    rounds: int | None = None

    @property
    def participation(self) -> float:
        """Share of the clients with any work."""
        return self.working / self.clients if self.clients else 0.0


def step_of(groups: Sequence[Group], end: int) -> Step:
    """What the clients make of a step that ends with unit `end`."""
    holding = np.sum([group.holding(end) for group in groups], axis=0)
    clients = int(holding.sum())
    training = np.cumsum(holding)
    return Step(
        last_unit=end,
        coverage=tuple(float(count) / max(1, clients) for count in training[: end + 1]),
        clients=clients,
        working=int(training[end + 1]),
        seconds=_round_seconds(groups, end),
    )


def _round_seconds(groups: Sequence[Group], end: int) -> float | None:
    """The `SLOWEST` quantile over the clients with work, None where nobody has any or nobody knows."""
    if any(end not in group.seconds for group in groups):
        return None
    timed = [group.timed(end) for group in groups]
    seconds = np.concatenate([seconds for seconds, _ in timed])
    counts = np.concatenate([counts for _, counts in timed])
    order = np.argsort(seconds, kind="stable")
    passed = np.cumsum(counts[order])
    if not len(passed) or passed[-1] == 0:
        return None
    return float(seconds[order][np.searchsorted(passed, SLOWEST * passed[-1])])
