"""A run's folder as the report reads it; a run that is not finished has rounds but no summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from device_profiles.errors import FormatError
from device_profiles.files import read_json
from server.fleet.fleet import Fleet
from server.rounds.records import RoundRecord
from server.rounds.run_state import FLEET_NAME, RunFolder
from server.rounds.summary import Summary


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Rounds, the summary where the run is finished, and the rounds at which it stopped because too few delivered."""

    name: str
    fleet: Fleet
    rounds: tuple[RoundRecord, ...]
    summary: Summary | None
    given_up: tuple[RoundRecord, ...] = ()

    def troubles(self) -> list[str]:
        """Where the run stopped because too few delivered, and where it took a smaller learning rate because clients
        diverged, each in a sentence."""
        return [said for said in (self._stops(), self._slower()) if said is not None]

    def _slower(self) -> str | None:
        halved = [r for before, r in zip((None, *self.rounds), self.rounds, strict=False) if _halves(before, r)]
        if not halved:
            return None
        places = [f"{_title(r)} from round {r.round_of_stage} on 1/{2**r.rate_halvings}" for r in halved]
        return f"{self.name}: clients diverged, and the learning rate was lowered ({'; '.join(places)} of it)"

    def _stops(self) -> str | None:
        if not self.given_up:
            return None
        rounds = [f"{_title(r)}, round {r.round_of_stage}" for r in self.given_up]
        named = "; ".join(dict.fromkeys(rounds))
        times = "once" if len(rounds) == 1 else f"{len(rounds)} times"
        return f"{self.name}: stopped {times} because too few clients delivered ({named})"

    def stages(self) -> list[tuple[str, int, int]]:
        """Title, first and last round of every stage."""
        found: list[tuple[str, int, int]] = []
        for record in self.rounds:
            title = _title(record)
            if found and found[-1][0] == title and record.round_of_stage > 1:
                found[-1] = (title, found[-1][1], record.round)
            else:
                found.append((title, record.round, record.round))
        return found

    @property
    def measure(self) -> str:
        """What the run is judged by: `accuracy`, or `loss` where outputs are compared with numbers."""
        return "loss" if self.fleet.model.targets else "accuracy"

    def reached(self) -> tuple[list[int], list[float]]:
        """Rounds that were evaluated, and what they reached by the run's measure."""
        values = ((r.round, r.test_loss if self.fleet.model.targets else r.accuracy) for r in self.rounds)
        known = [(number, value) for number, value in values if value is not None]
        return [number for number, _ in known], [value for _, value in known]

    def device_seconds(self) -> dict[int, float]:
        """Seconds of all devices together up to and including a round."""
        seconds = accumulate(sum(c.seconds for c in (*r.clients, *r.repeated)) for r in self.rounds)
        return {record.round: total for record, total in zip(self.rounds, seconds, strict=True)}


def _title(record: RoundRecord) -> str:
    return f"{record.stage} {record.block}" if record.block else record.stage


def _halves(before: RoundRecord | None, record: RoundRecord) -> bool:
    """Whether the learning rate of its stage became smaller in this round."""
    same = before is not None and record.round_of_stage > 1
    return record.rate_halvings > (before.rate_halvings if before is not None and same else 0)


def measure_of(runs: Sequence[Run]) -> str:
    """What runs are compared by: accuracy, loss, or both where they are not judged by the same."""
    return " or ".join(sorted({run.measure for run in runs}))


def read_run(folder: Path) -> Run:
    """Read a run's folder; raises FormatError where it is none."""
    state = RunFolder(folder)
    if not state.exists:
        raise FormatError(
            f"{folder}: no run here (state.json is missing); name the folder given to profl-server run -o"
        )
    path = folder / "summary.json"
    summary = read_json(path, Summary) if path.is_file() else None
    rounds = tuple(state.records())
    if not rounds:
        raise FormatError(f"{folder}: has no finished round yet")
    fleet = read_json(folder / FLEET_NAME, Fleet)
    return Run(name=folder.name, fleet=fleet, rounds=rounds, summary=summary, given_up=tuple(state.failures()))
