"""Plans for fleets of any size: classes of clients, against every client looked at by itself."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.errors import ExecutionError, FormatError, UsageError
from device_profiles.files import read_json, write_json
from device_profiles.model import Partition
from device_profiles.work import Growing, suffixes
from server.cli import cli
from server.engines.simulation import fleet_plan as simulated
from server.fleet.population import NameRun
from server.planner.fleet_plan import Clients, FleetClass, FleetPlan, Kind, plan_fleet

UNITS = 4


def needs_of(scale: int) -> dict[int, list[int]]:
    """Longer runs need more; the output module alone needs least."""
    return {end: [scale * (10 * (end - first + 1) + first + 5) for first in range(end + 2)] for end in range(UNITS)}


def clients_of(budgets: list[int], kinds: list[int] | None = None) -> Clients:
    return Clients(
        budgets=np.array(budgets),
        kinds=np.array(kinds or [0] * len(budgets)),
        runs=(NameRun(prefix="client", count=len(budgets)),),
    )


def classes_by_client(plan: FleetPlan) -> list[FleetClass]:
    return [plan.classes[at] for at in plan.column]


KINDS = [Kind(name="slim", needs=needs_of(1)), Kind(name="wide", needs=needs_of(2)), Kind(name="none", needs={})]

fleets = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 1)), min_size=1, max_size=40)


@settings(deadline=None)
@given(fleets, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_every_client_does_the_most_that_it_holds_in_each_step(fleet: list[tuple[int, int]], coverage: float) -> None:
    budgets, kinds = [budget for budget, _ in fleet], [kind for _, kind in fleet]
    try:
        plan = plan_fleet(KINDS, clients_of(budgets, kinds), UNITS, coverage=coverage)
    except ExecutionError:
        assert all(budget < min(min(row) for row in KINDS[kind].needs.values()) for budget, kind in fleet)
        return
    plan.check("plan")
    for (budget, kind), found in zip(fleet, classes_by_client(plan), strict=True):
        assert found.kind == KINDS[kind].name
        assert found.least_budget_bytes <= budget <= found.most_budget_bytes
        for number, step in enumerate(plan.steps.steps, start=1):
            choices = zip(suffixes(plan.steps.partition, number), KINDS[kind].needs[step.last_unit], strict=True)
            expected: tuple[Growing | None, int | None] = next(
                ((work, need) for work, need in choices if need <= budget), (None, None)
            )
            assert (found.works[number - 1], found.promised_bytes[number - 1]) == expected
    for step, shares in enumerate(plan.steps.steps):
        working = sum(found.works[step] is not None for found in classes_by_client(plan))
        assert shares.working == working


@settings(deadline=None)
@given(fleets)
def test_the_order_of_clients_does_not_matter(fleet: list[tuple[int, int]]) -> None:
    fleet = [(budget + 40, kind) for budget, kind in fleet]
    there, back = fleet, fleet[::-1]
    one, two = (
        plan_fleet(KINDS, clients_of([b for b, _ in f], [k for _, k in f]), UNITS, coverage=0.1) for f in (there, back)
    )
    assert one.steps == two.steps and one.classes == two.classes
    assert one.column.tolist() == two.column.tolist()[::-1]


def test_classes_do_not_grow_with_the_fleet() -> None:
    budgets = np.random.default_rng(0).integers(0, 120, size=100_000)
    plan = plan_fleet(KINDS, clients_of(budgets.tolist()), UNITS, coverage=0.1)
    assert len(plan.classes) <= len(plan.steps.steps) * (UNITS + 1) + 1
    assert sum(kind.clients for kind in plan.classes) == 100_000


def test_a_client_is_found_by_its_name() -> None:
    clients = Clients(
        budgets=np.array([20, 45, 100]),
        kinds=np.array([0, 0, 0]),
        runs=(NameRun(prefix="a-", count=2), NameRun(prefix="b-", count=1)),
    )
    plan = plan_fleet(KINDS, clients, UNITS, coverage=0.0)
    found = classes_by_client(plan)
    assert [plan.class_named(name) for name in ("a-000", "a-001", "b-000")] == found
    for name in ("a-002", "b-00", "b-0", "c-000", "b-001", ""):
        with pytest.raises(UsageError, match=f"no client '{name}'; their names go from a-000 to b-000"):
            plan.class_named(name)
    named = plan_fleet(
        KINDS,
        Clients(budgets=clients.budgets, kinds=clients.kinds, names=("x", "y", "z")),
        UNITS,
        coverage=0.0,
    )
    assert named.class_named("z") == found[2]


def test_a_plan_is_read_as_it_was_written_and_what_is_wrong_in_it_named(tmp_path: Path) -> None:
    plan = plan_fleet(KINDS, clients_of([20, 45, 100, 45]), UNITS, coverage=0.1)
    path = tmp_path / "plan.json"
    write_json(path, plan)
    assert read_json(path, FleetPlan) == plan
    document = json.loads(path.read_text())
    for field, value, message in [
        ("class_of", base64.b64encode(b"123").decode(), "class_of holds no whole numbers"),
        ("class_of", base64.b64encode(np.array([0, 0, 0, 9], "<u4").tobytes()).decode(), "the clients that classes"),
        ("runs", [{"prefix": "client", "count": 3}], "has 4 clients, which is not the number of names"),
        ("classes", [kind | {"works": []} for kind in document["classes"]], "something for each of"),
        ("format_version", 99, "format_version 99"),
        ("steps", None, "steps"),
    ]:
        path.write_text(json.dumps(document | {field: value}))
        with pytest.raises(FormatError, match=f"{path}: .*{message}"):
            read_json(path, FleetPlan)


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """`fleet plan` of a model of four units, without capturing one."""

    class Programs:
        def __init__(self, *_: object) -> None:
            self.units = ("stem", "a", "b", "c")

        def partition(self, text: str) -> Partition:
            return Partition.ending_with([int(block.split("-")[1]) for block in text.split(",")])

    needs = {end: [need << 20 for need in row] for end, row in needs_of(1).items()}
    monkeypatch.setattr(simulated, "RunPrograms", Programs)
    monkeypatch.setattr(simulated, "needs_of_runs", lambda fleet, units: needs)
    monkeypatch.setattr(simulated, "needs_in", lambda fleet, partition: needs)
    path = tmp_path / "fleet.toml"

    def run(clients: str, *options: str, model: str = "") -> Result:
        path.write_text(f'margin = 0\n[model]\nname = "cnn"\n{model}[data]\nsources = ["digits"]\n{clients}')
        return CliRunner().invoke(cli, ["fleet", "plan", "--fleet", str(path), *options])

    return run


NAMED = "".join(f'[[clients]]\nname = "{name}"\nlimit_mb = {mb}\n' for name, mb in [("a", 100), ("b", 30), ("c", 2)])


def test_the_plan_of_a_fleet_file_is_shown_explained_and_written(planned: object, tmp_path: Path) -> None:
    assert callable(planned)
    output = tmp_path / "plan.json"
    text = planned(NAMED, "-o", str(output)).stdout
    assert "3 c " in text and [line.split()[:2] for line in text.splitlines()[-4:-1]] == [
        ["any", "1"],
        ["any", "1"],
        ["any", "1"],
    ]
    plan = read_json(output, FleetPlan)
    assert plan.class_named("a").promised_bytes == (45 << 20,) and plan.class_named("c").works == (None,)
    explained = planned(NAMED, "--why", "b").stdout
    assert explained.splitlines() == [
        "b: any, in a class of 1 with 30.0 to 30.0 MB",
        "step 1, up to unit 3 c: trains from unit 2 b, promised 27.0 MB",
    ]
    assert "nothing; not even the output module fits" in planned(NAMED, "--why", "c").stdout
    assert isinstance(planned(NAMED, "--why", "d").exception, UsageError)
    assert json.loads(planned(NAMED, "--json").stdout)["units"] == ["stem", "a", "b", "c"]


def test_clients_are_grouped_by_the_classes_of_their_population(planned: object) -> None:
    assert callable(planned)
    classes = "".join(
        f'[[classes]]\nname = "{name}"\nshare = 1\nmemory_mb = [{mb}, {mb}]\n'
        for name, mb in [("old", 20), ("new", 90)]
    )
    said = json.loads(planned("[population]\ncount = 1000\n" + classes, "--json").stdout)
    assert [(kind["kind"], kind["clients"]) for kind in said["classes"]] == [("old", 500), ("new", 500)]


def test_a_fleet_in_which_nobody_holds_anything_is_one_line_and_nothing_is_written(
    planned: object, tmp_path: Path
) -> None:
    assert callable(planned)
    output = tmp_path / "plan.json"
    result = planned('[[clients]]\nname = "a"\nlimit_mb = 1\n', "-o", str(output))
    assert isinstance(result.exception, ExecutionError) and "holds any part of the model" in str(result.exception)
    assert not output.exists()


def test_the_partition_of_a_fleet_file_is_its_steps(planned: object, tmp_path: Path) -> None:
    assert callable(planned)
    own = 'partition = "0-1,2-3"\n'
    done = planned(NAMED, "--json", model=own)
    assert [step["last_unit"] for step in json.loads(done.stdout)["steps"]["steps"]] == [1, 3]
    nobody = planned('[[clients]]\nname = "a"\nlimit_mb = 1\n', "-o", str(tmp_path / "plan.json"), model=own)
    assert isinstance(nobody.exception, ExecutionError) and not (tmp_path / "plan.json").exists()


def test_the_same_input_gives_the_same_bytes() -> None:
    budgets = np.random.default_rng(1).integers(10, 120, size=500).tolist()
    one, two = (plan_fleet(KINDS, clients_of(budgets), UNITS, coverage=0.1) for _ in range(2))
    assert msgspec.json.encode(one) == msgspec.json.encode(two)
