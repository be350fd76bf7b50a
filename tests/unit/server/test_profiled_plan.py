"""`profl-server plan --fleet`: steps and work chosen from profiles of any bundle, shown, explained and exported."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="programs are planned with torch")

from device_profiles.costs import RunCost
from device_profiles.files import read_json, write_json
from device_profiles.loads import Load
from device_profiles.model import Partition
from device_profiles.profile import DeviceProfile
from device_profiles.work import label
from server.cli import cli
from server.fleet.fleet import TrainingSettings as Training
from server.fleet.model import ModelSettings
from server.planner.choices import NEVER
from server.planner.fleet_plan import FleetPlan, plan_fleet
from server.planner.pace import Pace
from server.planner.profiled import ProfiledFleet, profiled_fleet
from server.planner.run_programs import RunPrograms
from server.report.fleet_plan_page import fleet_plan_page

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
LIMITS_MB = {"large": 200, "medium": 60, "small": 53, "tiny": 4}
FLEET = '[model]\nname = "cnn"\nwidth = 16\nbatch = 256\n[data]\nsources = ["digits"]\n[population]\ncount = 1\n'


def _profile(name: str, limit_mb: int) -> DeviceProfile:
    profile = read_json(GOLDEN / "profile.json", DeviceProfile)
    device = msgspec.structs.replace(profile.device, name=name, limit_bytes=limit_mb << 20)
    return msgspec.structs.replace(profile, device=device)


@pytest.fixture(scope="module")
def programs() -> RunPrograms:
    return RunPrograms(ModelSettings(name="cnn", width=16, batch=256), Training())


@pytest.fixture(scope="module")
def there(programs: RunPrograms) -> ProfiledFleet:
    return profiled_fleet(programs, {n: _profile(n, mb) for n, mb in LIMITS_MB.items()}, margin=0.05)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, limit in LIMITS_MB.items():
        write_json(tmp_path / "profiles" / f"{name}.json", _profile(name, limit))
    (tmp_path / "fleet.toml").write_text(FLEET)
    return tmp_path


def _plan(files: Path, *options: str) -> tuple[int, str]:
    arguments = ["plan", "--fleet", str(files / "fleet.toml"), "--profiles", str(files / "profiles"), *options]
    done = CliRunner().invoke(cli, arguments)
    return done.exit_code, done.output if done.exception is None or done.exit_code == 0 else str(done.exception)


def test_devices_whose_profiles_predict_the_same_are_one_kind(there: ProfiledFleet) -> None:
    assert [kind.name for kind in there.kinds] == ["like large"]
    assert there.clients.names == tuple(LIMITS_MB)
    assert there.clients.budgets.tolist() == [mb << 20 for mb in LIMITS_MB.values()]


def test_longer_runs_need_more_and_a_profile_that_predicts_nothing_can_do_nothing(programs: RunPrograms) -> None:
    other = msgspec.structs.replace(_profile("other", 100), runtime="torch")
    killed = tuple(msgspec.structs.replace(c, fits=False, measured_peak_bytes=None) for c in other.costs)
    dead = msgspec.structs.replace(_profile("dead", 100), costs=killed)
    fleet = profiled_fleet(programs, {"a": _profile("a", 100), "b": other, "c": dead}, margin=0.05)
    alive, *others = fleet.kinds
    assert [kind.name for kind in others] == ["b", "c"]  # what keeps them from working differs
    assert {need for kind in others for row in kind.needs.values() for need in row} == {NEVER}
    for row in alive.needs.values():
        assert list(row) == sorted(row, reverse=True)


def test_a_kind_of_device_takes_its_steps_and_its_transfers_for_a_round(programs: RunPrograms) -> None:
    profile = _profile("a", 200)
    costs = tuple(msgspec.structs.replace(cost, loads={"winograd": Load(1, 1, 1, 10**7)}) for cost in profile.costs)
    profiles = {"a": msgspec.structs.replace(profile, costs=costs)}
    pace = Pace(local_steps=7, download=1e6, upload=1e5, most_rounds=3)
    timed = profiled_fleet(programs, profiles, margin=0.05)
    paced = profiled_fleet(programs, profiles, margin=0.05, pace=pace)
    (of_steps,), (of_rounds,) = timed.kinds, paced.kinds
    choices = paced.choices("a", Partition.ending_with([2]))[0]
    able = [at for at, choice in enumerate(choices) if choice.needs < NEVER]
    assert able
    for at in able:
        step, whole, cost = of_steps.seconds[2][at], of_rounds.seconds[2][at], choices[at].offer.plan
        assert isinstance(cost, RunCost) and 0 < cost.upload_bytes <= cost.download_bytes
        assert whole == pytest.approx(7 * step + cost.download_bytes / 1e6 + cost.upload_bytes / 1e5)


def test_nobody_is_promised_more_than_it_may_use(programs: RunPrograms, there: ProfiledFleet) -> None:
    given = Partition.ending_with([0, 1, 2])
    plan = plan_fleet(there.kinds, there.clients, 3, coverage=0.05, given=given, exact=there.exact)
    assert len(plan.steps.steps) == 3
    (exact,) = there.exact(given)
    for one in plan.classes:
        for step, promised in zip(plan.steps.steps, one.promised_bytes, strict=True):
            assert promised is None or (promised <= one.least_budget_bytes and promised in exact.needs[step.last_unit])
    assert plan.class_named("tiny").works == (None, None, None)


def test_a_plan_is_shown_written_and_explained(files: Path) -> None:
    status, said = _plan(files, "-o", str(files / "plan.json"), "--html", str(files / "plan.html"))
    assert status == 0, said
    plan = read_json(files / "plan.json", FleetPlan)
    assert "head" in said and len(plan.steps.steps) == 1
    page = (files / "plan.html").read_text()
    assert "4 clients" in page and "One more step" in page and page.count("<svg") == 2
    status, said = _plan(files, "--why", "small")
    assert status == 0
    does = [line for line in said.splitlines() if "is what it does" in line]
    work = plan.class_named("small").works[0]
    assert (
        work is not None and len(does) == 1 and label(work, plan.steps.partition) in does[0] and "predicted" in does[0]
    )
    assert "needs" in said and "may use 53.0 MB" in said


def test_the_programs_of_a_plan_are_exported_and_planned_for_in_turn(files: Path) -> None:
    status, said = _plan(files, "--export", str(files / "bundle"), "--json")
    assert status == 0, said
    wanted = {work["kind"] for one in json.loads(said.splitlines()[-1])["classes"] for work in one["works"] if work}
    names = {path.stem for path in (files / "bundle" / "programs").iterdir()}
    assert wanted == {name.split("-")[0] for name in names} - {"eval"}
    options = ["plan", "--bundle", str(files / "bundle"), "--profiles", str(files / "profiles"), "--json"]
    done = CliRunner().invoke(cli, options)
    assert done.exit_code == 0, done.output
    clients = json.loads(done.stdout)["steps"][0]["clients"]
    assert {c["client"]: c["fits"] for c in clients} == {"large": True, "medium": True, "small": True, "tiny": False}
    status, said = _plan(files, "--export", str(files / "bundle"))
    assert status != 0 and "exists; choose another folder" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--joint",), "--joint requires --bundle; leave it out"),
        (("--bundle", "b"), "either --bundle or --fleet says what is planned; give one of them"),
        (("--why", "nobody"), "--why nobody: has no profile; give one of large, medium, small, tiny"),
    ],
)
def test_what_does_not_go_together_is_one_line(files: Path, options: tuple[str, ...], message: str) -> None:
    status, said = _plan(files, *options)
    assert status != 0 and said == message


@pytest.mark.parametrize(("limit_mb", "steps"), [(0, ()), (4, ("--partition", "0-0,1-2")), (0, ("--blocks", "2"))])
def test_a_fleet_in_which_nobody_holds_anything_is_one_line_and_nothing_is_written(
    files: Path, limit_mb: int, steps: tuple[str, ...]
) -> None:
    for name in LIMITS_MB:
        write_json(files / "profiles" / f"{name}.json", _profile(name, limit_mb))
    there = sorted(files.rglob("*"))
    targets = [
        word
        for name in ("-o", "--html", "--export", "--costs")
        for word in (name, str(files / f"new{name.strip('-')}"))
    ]
    status, said = _plan(files, *steps, *targets)
    assert status == 1
    assert said == (
        "none of 4 clients holds any part of the model; give clients more memory, or train a smaller model or batch"
    )
    assert sorted(files.rglob("*")) == there


def test_a_page_escapes_what_strangers_call_their_devices(programs: RunPrograms) -> None:
    name = "<script>alert(1)</script>"
    there = profiled_fleet(programs, {name: _profile(name, 200)}, margin=0.05)
    plan = plan_fleet(there.kinds, there.clients, 3, coverage=0.05)
    page = fleet_plan_page(plan, there.clients, programs.units, name)
    assert "<script" not in page and "&lt;script&gt;" in page


def test_one_more_cut_is_the_best_of_those_there_are(there: ProfiledFleet) -> None:
    plan = plan_fleet(there.kinds, there.clients, 3, coverage=0.05)
    more = plan.with_one_more
    assert more is not None and len(more.steps) == len(plan.steps.steps) + 1
    cuts = [
        plan_fleet(there.kinds, there.clients, 3, coverage=0.05, given=Partition.ending_with([e, 2])) for e in (0, 1)
    ]
    assert min(more.coverage) == np.max([min(cut.steps.coverage) for cut in cuts])
    every = plan_fleet(there.kinds, there.clients, 3, coverage=0.05, given=Partition.ending_with([0, 1, 2]))
    assert every.with_one_more is None
