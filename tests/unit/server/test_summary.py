"""The summary of a run: what each client did, counted in one pass."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from device_profiles.task import Result
from device_profiles.work import grow
from server.fleet.client import Client
from server.fleet.fleet import DataSettings, Fleet
from server.fleet.model import ModelSettings
from server.fleet.population import ClientSettings
from server.methods.method import Stage
from server.rounds.records import RoundRecord
from server.rounds.run_state import RunState
from server.rounds.summary import Summary, summarise
from tests.support.partitions import blocks_of_one_unit

MB = 1 << 20


def _result(client: str, status: str = "ok", **others: object) -> Result:
    return Result(client=client, status=status, seconds=0.1, **others)


def _record(number: int, block: int, clients: Sequence[Result], **others: object) -> RoundRecord:
    values = {"rejected": {}, "bytes_down": 10, "bytes_up": 1, "seconds": 0.5, **others}
    return RoundRecord(
        round=number,
        stage="grow",
        block=block,
        round_of_stage=number,
        participation=1.0,
        clients=tuple(clients),
        loss=None,
        accuracy=None,
        effective_movement=None,
        slope=None,
        **values,
    )


def _summarise(names: Sequence[str], records: Sequence[RoundRecord], failed: Sequence[RoundRecord] = ()) -> Summary:
    works = [grow(blocks_of_one_unit(2), block) for block in (1, 2)]
    stages = [
        Stage(name="grow", block=block, choices=(work,), evaluated=work, rounds=9)
        for block, work in enumerate(works, start=1)
    ]
    needs = {works[0].name: 30 * MB, works[1].name: 20 * MB}
    return summarise(
        fleet=Fleet(
            model=ModelSettings(name="cnn"),
            data=DataSettings(sources=("digits",)),
            named=tuple(ClientSettings(name=name, limit_mb=64) for name in names),
        ),
        method="profl",
        data="digits",
        accuracy=0.5,
        stages=stages,
        clients=[
            Client(name=name, budget_bytes=64 * MB, needs={w: need + at for w, need in needs.items()}, examples=1)
            for at, name in enumerate(names)
        ],
        state=RunState(
            settings_sha256="",
            round=len(records),
            stage=2,
            round_of_stage=0,
            steps=(),
            finished=True,
            weights_sha256="",
            rounds_bytes=0,
        ),
        records=records,
        failed=failed,
        whole_network=None,
        model_file="model.safetensors",
    )


def test_a_client_is_counted_where_its_update_was_taken() -> None:
    records = [
        _record(1, 1, [_result("a", measured_peak_bytes=7), _result("b")], rejected={"b": "odd"}),
        _record(2, 2, [_result("a", "died", oom_kills=1, limit_kind="cgroup-v2"), _result("b")]),
    ]
    a, b, idle = _summarise(["a", "b", "idle"], records).clients
    assert (a.rounds, a.blocks, a.failures, a.oom_kills) == (1, (1,), 1, 1)
    assert (a.measured_peak_bytes, a.predicted_peak_bytes, a.limit_kind) == (7, 30 * MB, "cgroup-v2")
    assert (b.rounds, b.blocks, b.failures, b.predicted_peak_bytes, b.limit_kind) == (1, (2,), 1, 20 * MB + 1, "none")
    assert (idle.rounds, idle.blocks, idle.failures, idle.predicted_peak_bytes) == (0, (), 0, 0)


def test_repeated_and_given_up_rounds_count_as_failures_and_costs_but_not_as_rounds() -> None:
    taken = _record(1, 1, [_result("a")], repeated=(_result("a", "died"),), rejected_before=({"a": "odd"},))
    given_up = _record(2, 2, [_result("a", measured_peak_bytes=9), _result("b", "died")], rejected={"a": "odd"})
    summary = _summarise(["a", "b"], [taken], [given_up])
    a, b = summary.clients
    assert (a.rounds, a.blocks, a.failures, a.measured_peak_bytes) == (1, (1,), 3, 9)
    assert (b.rounds, b.blocks, b.failures) == (0, (), 1)
    assert (summary.rounds, summary.bytes_down, summary.bytes_up, summary.seconds) == (1, 20, 2, 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_every_count_is_that_of_looking_through_all_rounds_for_each_client(seed: int) -> None:
    draw = random.Random(seed)
    names = list("abcd")

    def record(number: int) -> RoundRecord:
        def results() -> tuple[Result, ...]:
            chosen = draw.sample(names, draw.randrange(5))
            return tuple(
                _result(name, draw.choice(["ok", "ok", "died"]), measured_peak_bytes=draw.choice([None, 3, 5]))
                for name in chosen
            )

        def rejected() -> dict[str, str]:
            return dict.fromkeys(draw.sample(names, draw.randrange(3)), "odd")

        more = {"rejected": rejected(), "repeated": results(), "rejected_before": (rejected(), rejected())}
        return _record(number, draw.choice([1, 2]), results(), **more)

    records, failed = [record(number) for number in range(6)], [record(number) for number in range(2)]
    for client in _summarise(names, records, failed).clients:
        name, everything = client.client, [*records, *failed]
        own = [r for record in everything for r in (*record.repeated, *record.clients) if r.client == name]
        refusals = [reasons for record in everything for reasons in (*record.rejected_before, record.rejected)]
        taken = [
            record.block
            for record in records
            for r in record.clients
            if r.client == name and r.status == "ok" and name not in record.rejected
        ]
        assert client.failures == sum(r.status != "ok" for r in own) + sum(name in reasons for reasons in refusals)
        assert client.measured_peak_bytes == max((r.measured_peak_bytes or 0 for r in own), default=0)
        assert client.rounds == len(taken) and client.blocks == tuple(sorted(set(taken)))


def test_a_thousand_clients_and_a_thousand_rounds_are_summarised_in_seconds() -> None:
    names = [f"client{number}" for number in range(1000)]
    results = [_result(name) for name in names]
    records = [_record(number, 1 + number % 2, results) for number in range(1000)]
    started = time.process_time()
    summary = _summarise(names, records)
    # About one second on the machine of the docs; to look through all rounds for each client takes minutes.
    assert time.process_time() - started < 10
    assert {client.rounds for client in summary.clients} == {1000} and summary.clients[-1].blocks == (1, 2)
