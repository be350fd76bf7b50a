"""What came of the attempts at one round, and the line that `rounds.jsonl` says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from device_profiles.task import Result, Task, has_diverged
from device_profiles.work import Work
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.fleet import Fleet
from server.rounds.records import RoundRecord
from server.rounds.tasks import RoundPlace

_NAMED_FAILURES = 3
"""Clients that the message names when the run stops; all of them are in rounds.jsonl."""


@dataclass(kw_only=True, slots=True)
class Attempts:
    """What came of the attempts at one round: the last one's answers, and what was lost in those before.

    Attributes:
        work: what each client was asked for, in any of them.
        participation: of the clients that were there in the last one, how many have work in this stage.
        results: of the last attempt.
        accepted: its updates for the average.
        rejected: why others of it are not, by client.
        repeated: results of the attempts before, in order.
        rejected_before: what was rejected in each of those.
        late: clients whose answer to an earlier attempt came only in one of these; it is refused.
        rate_halvings: how often the stage's learning rate has been halved, after the last one.
    """

    work: dict[str, Work] = field(default_factory=dict)
    participation: float = 0.0
    results: list[Result] = field(default_factory=list)
    accepted: list[ReceivedUpdate] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    repeated: list[Result] = field(default_factory=list)
    rejected_before: list[dict[str, str]] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    rate_halvings: int = 0

    def start(self, assigned: Mapping[str, Work], tasks: Sequence[Task], clients: int) -> None:
        """Make room for another attempt, of `tasks` for some of `clients` clients; nothing of this one is forgotten."""
        if self.results:
            self.repeated += self.results
            self.rejected_before.append(self.rejected)
        self.work |= {task.client: task.work for task in tasks}
        self.participation = len(assigned) / clients if clients else 0.0

    def trained(self) -> list[Work]:
        """The work of the last attempt."""
        return [self.work[result.client] for result in self.results]

    def diverged(self) -> list[str]:
        """Clients of the last attempt whose training has diverged, as they say or as their update shows."""
        said = {result.client: result.status for result in self.results} | self.rejected
        return [client for client, what in said.items() if has_diverged(what)]

    def mostly_diverged(self) -> bool:
        """Whether more than half of those that trained in the last attempt diverged: one of two proves nothing."""
        diverged = self.diverged()
        trained = {result.client for result in self.results if result.status == "ok"} | set(diverged)
        return 2 * len(diverged) > len(trained)

    def failed(self) -> list[str]:
        """Those of the last attempt that did not deliver, each with what became of it."""
        said = {result.client: result.status for result in self.results if result.status != "ok"} | self.rejected
        return [f"{client}: {reason}" for client, reason in said.items()]


def round_record(place: RoundPlace, attempts: Attempts, seconds: float, *, failed: bool = False) -> RoundRecord:
    """The line of a round, without what comes of its average."""
    answers = (*attempts.results, *attempts.repeated)
    return RoundRecord(
        round=place.state.round + 1,
        stage=place.stage.name,
        block=place.stage.block,
        round_of_stage=place.state.round_of_stage + 1,
        participation=attempts.participation,
        clients=tuple(attempts.results),
        rejected=attempts.rejected,
        loss=None,
        accuracy=None,
        effective_movement=None,
        slope=None,
        bytes_down=sum(result.bytes_down for result in answers),
        bytes_up=sum(result.bytes_up for result in answers),
        seconds=seconds,
        repeated=tuple(attempts.repeated),
        rejected_before=tuple(attempts.rejected_before),
        failed=failed,
        cut={u.client: u.cut for u in attempts.accepted if u.cut},
        stopped_early={u.client: u.share for u in attempts.accepted if u.metadata.stopped_early},
        work={client: work.name for client, work in attempts.work.items()},
        late=tuple(attempts.late),
        rate_halvings=attempts.rate_halvings,
    )


def too_few(fleet: Fleet, place: RoundPlace, attempts: Attempts) -> str:
    """Why the run stops at a round in which fewer delivered than must."""
    training = fleet.training
    failed = attempts.failed()
    said = "; ".join(failed[:_NAMED_FAILURES]) or "nobody answered"
    more = f"; {len(failed) - _NAMED_FAILURES} more in rounds.jsonl" if len(failed) > _NAMED_FAILURES else ""
    if attempts.rate_halvings > place.rate_halvings:
        times = 2 ** (attempts.rate_halvings - place.rate_halvings)
        remedy = f"--resume goes on with 1/{times} of the learning rate; it may need a new run with a smaller one"
    else:
        remedy = "continue with --resume"
    return (
        f"{place.stage.title}, round {place.state.round_of_stage + 1}: {len(attempts.accepted)} clients delivered in "
        f"the last of {training.attempts} attempts, training.min_clients is {training.min_clients} ({said}{more}); the "
        f"run is saved after round {place.state.round}, {remedy}"
    )


def mean_loss(results: Sequence[Result]) -> float | None:
    """Last losses weighted by examples, over the clients that delivered."""
    known = [(r.loss_last, r.examples) for r in results if r.loss_last is not None and r.examples]
    examples = sum(count for _, count in known)
    return sum(loss * count for loss, count in known) / examples if examples else None
