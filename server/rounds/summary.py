"""`summary.json`: the result of a run, from its state, its rounds and its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.fleet.work import Work
from server.methods.method import Stage
from server.planner.assignment import BestHeld, Planner
from server.planner.whole_network import WholeNetwork
from server.rounds.run_state import RoundRecord, RunState, StepRecord


class ClientSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One device: its limit, the largest promise it was given, the largest peak it reached."""

    client: str
    limit_bytes: int
    limit_kind: str
    predicted_peak_bytes: int
    measured_peak_bytes: int
    oom_kills: int
    blocks: tuple[int, ...]
    rounds: int
    failures: int


class StepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One stage; `block` is 0 where it trained the whole network."""

    stage: str
    block: int
    rounds: int
    froze_because: str
    accuracy: float
    participation: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that scripts rely on."""

    model: str
    method: str
    data: str
    accuracy: float
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


def summarise(
    *,
    fleet: Fleet,
    method: str,
    data: str,
    accuracy: float,
    stages: Sequence[Stage],
    clients: Sequence[Client],
    state: RunState,
    records: Sequence[RoundRecord],
    failed: Sequence[RoundRecord] = (),
    whole_network: WholeNetwork | None,
    model_file: str,
    planner: Planner | None = None,
) -> Summary:
    """The summary of a run; `accuracy` is the finished model's on the whole test set.

    `clients` are all that were ever there, `planner` is the run's.
    `failed` are the rounds at which the run stopped because too few delivered: their costs and failures count.
    """
    planner = BestHeld() if planner is None else planner
    assigned = {(str(stage.name), stage.block): planner.assign(stage, clients) for stage in stages}
    working = {client for works in assigned.values() for client in works}
    names = {work.name: work for stage in stages for work in stage.choices}
    return Summary(
        model=fleet.model.name,
        method=method,
        data=data,
        accuracy=accuracy,
        rounds=state.round,
        steps=tuple(_step(step) for step in state.steps),
        clients=tuple(_client(client, records, failed, assigned, names) for client in clients),
        participation=len(working) / len(clients),
        bytes_down=sum(record.bytes_down for record in (*records, *failed)),
        bytes_up=sum(record.bytes_up for record in (*records, *failed)),
        seconds=sum(record.seconds for record in (*records, *failed)),
        whole_network=whole_network,
        model_file=model_file,
        finished=state.finished,
    )


def _step(step: StepRecord) -> StepSummary:
    return StepSummary(
        stage=step.stage,
        block=step.block,
        rounds=step.rounds,
        froze_because=step.froze_because,
        accuracy=step.accuracy,
        participation=step.participation,
    )


def _client(
    client: Client,
    records: Sequence[RoundRecord],
    failed: Sequence[RoundRecord],
    assigned: Mapping[tuple[str, int], Mapping[str, Work]],
    names: Mapping[str, Work],
) -> ClientSummary:
    name = client.name
    own = [(record, result) for record in records for result in record.clients if result.client == name]
    everything = (*records, *failed)
    all_results = [r for record in everything for r in (*record.repeated, *record.clients) if r.client == name]
    rejections = [reasons for record in everything for reasons in (*record.rejected_before, record.rejected)]
    taken = [record for record, result in own if result.status == "ok" and name not in record.rejected]
    # Lines of releases that did not say what was asked for: what it is now.
    works = [
        names.get(record.work.get(name, "")) or assigned.get((record.stage, record.block), {}).get(name)
        for record in taken
    ]
    return ClientSummary(
        client=name,
        limit_bytes=client.budget_bytes,
        limit_kind=all_results[-1].limit_kind if all_results else "none",
        predicted_peak_bytes=max((client.needs.get(work.name, 0) for work in works if work is not None), default=0),
        measured_peak_bytes=max((result.measured_peak_bytes or 0 for result in all_results), default=0),
        oom_kills=sum(result.oom_kills for result in all_results),
        blocks=tuple(sorted({record.block for record in taken})),
        rounds=len(taken),
        failures=sum(result.status != "ok" for result in all_results) + sum(name in each for each in rejections),
    )
