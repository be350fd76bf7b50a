"""Who does what in a round: the first choice that each client holds, whoever shares needs with whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device_profiles.model import Partition
from device_profiles.work import suffixes
from server.fleet.client import Client
from server.methods.method import Stage
from server.planner.assignment import BestHeld

CHOICES = suffixes(Partition.ending_with([3]), 1)
needs = st.dictionaries(st.sampled_from([work.name for work in CHOICES]), st.integers(0, 9))


@given(st.lists(needs, min_size=1, max_size=3), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=20))
def test_every_client_does_the_first_that_it_holds(tables: list[dict[str, int]], fleet: list[tuple[int, int]]) -> None:
    clients = [
        Client(name=f"c{number}", budget_bytes=budget, needs=tables[table % len(tables)])
        for number, (budget, table) in enumerate(fleet)
    ]
    stage = Stage(name="grow", block=1, choices=CHOICES, evaluated=CHOICES[0], rounds=1)
    expected = {client.name: client.first_held(CHOICES) for client in clients}
    assigned = BestHeld().assign(stage, clients)
    assert assigned == {name: work for name, work in expected.items() if work is not None}
    assert list(assigned) == [name for name in expected if name in assigned]
