"""A client as the server knows it: what it may use, and what every piece of work needs of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from device_profiles.trades import Trade
from device_profiles.work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """One client of a fleet.

    Attributes:
        name: no two of a fleet are alike.
        budget_bytes: what it may use.
        needs: bytes that it is promised to need, by the work's name; work that is missing does not run there.
        examples: how many it has, None where only the client knows.
        trades: the variant in which it does a piece of work, by the work's name, where that is not the default one.
        step_seconds: predicted or measured seconds of one step, by the work's name; missing where nobody knows.
    """

    name: str
    budget_bytes: int
    needs: Mapping[str, int] = field(default_factory=dict)
    examples: int | None = None
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    trades: Mapping[str, Trade] = field(default_factory=dict)

    def holds(self, work: Work) -> bool:
        """Whether its memory holds the promise of `work`."""
        needed = self.needs.get(work.name)
        return needed is not None and needed <= self.budget_bytes

    def first_held(self, works: Iterable[Work]) -> Work | None:
        """The first of `works` that it holds."""
        return next((work for work in works if self.holds(work)), None)


def alike(budgets: Mapping[str, int], needs: Mapping[str, int]) -> Sequence[Client]:
    """Clients of these budgets, by name, that all need the same."""
    return [Client(name=name, budget_bytes=budget, needs=needs) for name, budget in budgets.items()]
