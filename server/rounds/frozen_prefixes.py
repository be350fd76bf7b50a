"""Which state of the frozen blocks a client has, so that nothing is sent or computed twice while it lasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from device_profiles.task import Result
from device_profiles.work import Work, first_trained_unit


class FrozenPrefixes:
    """Follows, round by round, where frozen blocks were changed by others and who has had which state of them."""

    def __init__(self) -> None:
        self._stage = -1
        self._moved: dict[int, int] = {}
        """By the first unit that somebody trained in this stage: the last round of the run in which that was."""
        self._had: set[tuple[str, str]] = set()

    def name(self, stage: int, work: Work, assigned: Mapping[str, Work]) -> str | None:
        """Name of the state of the blocks before `work` in stage number `stage`; None where one of those `assigned` in
        this round changes it."""
        if any(first_trained_unit(other) < first_trained_unit(work) for other in assigned.values()):
            return None
        return self._state(stage, work)

    def had_by(self, client: str, prefix: str | None) -> bool:
        """Whether the client has had a task of this state, and done it."""
        return prefix is not None and (client, prefix) in self._had

    def answered(self, stage: int, work: Mapping[str, Work], results: Iterable[Result]) -> None:
        """Clients that did their task have the state that it came with."""
        for result in results:
            if result.status == "ok" and result.client in work:
                self._had.add((result.client, self._state(stage, work[result.client])))

    def trained(self, stage: int, round_number: int, work: Iterable[Work]) -> None:
        """A round of the run has averaged what clients did of `work`."""
        if stage != self._stage:
            self._stage, self._moved = stage, {}
        for each in work:
            self._moved[first_trained_unit(each)] = round_number

    def _state(self, stage: int, work: Work) -> str:
        moved = self._moved if stage == self._stage else {}
        last = max((number for first, number in moved.items() if first < first_trained_unit(work)), default=None)
        return f"stage{stage}" if last is None else f"stage{stage}-round{last}"
