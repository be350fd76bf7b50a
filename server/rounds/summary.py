"""`summary.json`: the result of a run, from its state, its rounds and its plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from device_profiles.task import NOT_NEEDED
from device_profiles.work import Work
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.methods.method import Stage
from server.planner.assignment import BestHeld, Planner
from server.planner.whole_network import WholeNetwork
from server.rounds.records import RoundRecord, StepRecord
from server.rounds.run_state import RunState


class ClientSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One device: its limit, the largest promise it was given, the largest peak it reached.

    `trained` are the names of the work that it did, in the order of the steps.
    """

    client: str
    limit_bytes: int
    limit_kind: str
    predicted_peak_bytes: int
    measured_peak_bytes: int
    oom_kills: int
    blocks: tuple[int, ...]
    rounds: int
    failures: int
    trained: tuple[str, ...] = ()


class StepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One stage; `block` is 0 where it trained the whole network."""

    stage: str
    block: int
    rounds: int
    froze_because: str
    accuracy: float | None
    participation: float
    test_loss: float | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that scripts rely on. `planned_again` has a line for each time that other steps took the place of those
    that remained."""

    model: str
    method: str
    data: str
    accuracy: float | None
    rounds: int
    steps: tuple[StepSummary, ...]
    clients: tuple[ClientSummary, ...]
    participation: float
    bytes_down: int
    bytes_up: int
    seconds: float
    whole_network: WholeNetwork | None
    model_file: str
    finished: bool
    epsilon: float | None = None
    delta: float | None = None
    planned_again: tuple[str, ...] = ()
    test_loss: float | None = None


def summarise(
    *,
    fleet: Fleet,
    method: str,
    data: str,
    accuracy: float | None,
    test_loss: float | None = None,
    stages: Sequence[Stage],
    clients: Sequence[Client],
    state: RunState,
    records: Sequence[RoundRecord],
    failed: Sequence[RoundRecord] = (),
    whole_network: WholeNetwork | None,
    model_file: str,
    planner: Planner | None = None,
    planned_again: tuple[str, ...] = (),
) -> Summary:
    """The summary of a run; `accuracy` and `test_loss` are the finished model's on the whole test
    set.

    `clients` are all that were ever there, `planner` is the run's.
    `failed` are the rounds at which the run stopped because too few delivered: their costs and failures count.
    """
    planner = BestHeld() if planner is None else planner
    assigned = {(str(stage.name), stage.block): planner.assign(stage, clients) for stage in stages}
    working = {client for works in assigned.values() for client in works}
    names = {work.name: work for stage in stages for work in stage.choices}
    done = _by_client(records, failed)
    return Summary(
        model=fleet.model.name,
        method=method,
        data=data,
        accuracy=accuracy,
        rounds=state.round,
        steps=tuple(_step(step) for step in state.steps),
        clients=tuple(_client(client, done.get(client.name, _Done()), assigned, names) for client in clients),
        participation=len(working) / len(clients),
        bytes_down=sum(record.bytes_down for record in (*records, *failed)),
        bytes_up=sum(record.bytes_up for record in (*records, *failed)),
        seconds=sum(record.seconds for record in (*records, *failed)),
        whole_network=whole_network,
        model_file=model_file,
        finished=state.finished,
        epsilon=records[-1].epsilon if records else None,
        delta=None if fleet.privacy is None else fleet.privacy.delta,
        planned_again=planned_again,
        test_loss=test_loss,
    )


def _step(step: StepRecord) -> StepSummary:
    return StepSummary(
        stage=step.stage,
        block=step.block,
        rounds=step.rounds,
        froze_because=step.froze_because,
        accuracy=step.accuracy,
        test_loss=step.test_loss,
        participation=step.participation,
    )


@dataclass(slots=True)
class _Done:
    """What one client did in all rounds.

    `steps`: stage and block of the rounds that took its update, with the work that was asked for.
    """

    limit_kind: str = "none"
    measured_peak_bytes: int = 0
    predicted_peak_bytes: int = 0
    oom_kills: int = 0
    failures: int = 0
    rounds: int = 0
    steps: set[tuple[tuple[str, int], str]] = field(default_factory=set)


def _by_client(records: Sequence[RoundRecord], failed: Sequence[RoundRecord]) -> dict[str, _Done]:
    """Every client of any record, in one pass: a run has thousands of rounds, each with many clients."""
    found: dict[str, _Done] = defaultdict(_Done)
    for record in (*records, *failed):
        for result in (*record.repeated, *record.clients):
            done = found[result.client]
            done.limit_kind = result.limit_kind
            done.measured_peak_bytes = max(done.measured_peak_bytes, result.measured_peak_bytes or 0)
            done.oom_kills += result.oom_kills
            done.failures += result.status not in ("ok", NOT_NEEDED)
        for rejected in (*record.rejected_before, record.rejected):
            for client in rejected:
                found[client].failures += 1
    for record in records:
        step = (record.stage, record.block)
        for result in record.clients:
            if result.status == "ok" and result.client not in record.rejected:
                done = found[result.client]
                done.rounds += 1
                done.predicted_peak_bytes = max(done.predicted_peak_bytes, result.predicted_peak_bytes or 0)
                done.steps.add((step, record.work.get(result.client, "")))
    return found


def _client(
    client: Client,
    done: _Done,
    assigned: Mapping[tuple[str, int], Mapping[str, Work]],
    names: Mapping[str, Work],
) -> ClientSummary:
    # Lines of releases that did not say what was asked for: what it is now.
    steps = sorted(done.steps, key=lambda done: (done[0][1], done[1]))
    found = [names.get(asked) or assigned.get(step, {}).get(client.name) for step, asked in steps]
    works = [work for work in found if work is not None]
    return ClientSummary(
        client=client.name,
        limit_bytes=client.budget_bytes,
        limit_kind=done.limit_kind,
        # Of what was asked for then, which another plan or budget may have changed; earlier releases did not say it.
        predicted_peak_bytes=done.predicted_peak_bytes
        or max((client.needs.get(work.name, 0) for work in works), default=0),
        measured_peak_bytes=done.measured_peak_bytes,
        oom_kills=done.oom_kills,
        blocks=tuple(sorted({block for (_, block), _ in done.steps})),
        rounds=done.rounds,
        failures=done.failures,
        trained=tuple(dict.fromkeys(work.name for work in works)),
    )
