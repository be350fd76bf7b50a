"""`profl-server plan --fleet` with steps that somebody fixed, variants of work, and a table of costs that is kept."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch", reason="programs are planned with torch")

from click.testing import CliRunner, Result

from device_profiles.costs import Costs
from device_profiles.files import read_json, write_json
from device_profiles.model import Partition
from device_profiles.profile import DeviceProfile
from device_profiles.trades import trades_of
from server.cli import cli
from server.fleet.fleet import TrainingSettings
from server.fleet.model import ModelSettings
from server.planner import run_programs
from server.planner.fleet_plan import FleetPlan, plan_fleet
from server.planner.planner import candidates_in
from server.planner.profiled import ProfiledFleet, profiled_fleet
from server.planner.run_programs import RunPrograms
from server.planner.steps import COVERAGE

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
FLEET = '[model]\nname = "cnn"\nwidth = 16\nbatch = 256\n[data]\nsources = ["digits"]\n[population]\ncount = 1\n'
SETTINGS = ModelSettings(name="cnn", width=16, batch=256)
LIMITS_MB = {"large": 84, "wide": 76, "medium": 72, "small": 56, "tiny": 4}


def profile(name: str, limit_mb: int) -> DeviceProfile:
    golden = read_json(GOLDEN / "profile.json", DeviceProfile)
    device = msgspec.structs.replace(golden.device, name=name, limit_bytes=limit_mb << 20)
    return msgspec.structs.replace(golden, device=device)


@pytest.fixture(scope="module")
def programs() -> RunPrograms:
    return RunPrograms(SETTINGS, TrainingSettings(), trades=trades_of("exact"))


def fleet(programs: RunPrograms, limits: dict[str, int]) -> ProfiledFleet:
    return profiled_fleet(programs, {name: profile(name, mb) for name, mb in limits.items()}, margin=0.05)


def plan_of(there: ProfiledFleet) -> FleetPlan:
    return plan_fleet(there.kinds, there.clients, 3, coverage=0.05, exact=there.exact)


def taken(plan: FleetPlan, name: str) -> tuple[str | None, str]:
    one = plan.class_named(name)
    return None if one.works[0] is None else one.works[0].name, one.trade(0)


@pytest.fixture
def run(tmp_path: Path) -> object:
    for name, limit in LIMITS_MB.items():
        write_json(tmp_path / "profiles" / f"{name}.json", profile(name, limit))
    (tmp_path / "fleet.toml").write_text(FLEET)

    def plan(*options: str) -> Result:
        where = ["--fleet", str(tmp_path / "fleet.toml"), "--profiles", str(tmp_path / "profiles")]
        return CliRunner().invoke(cli, ["plan", *where, *options])

    return plan


def test_recomputation_lets_a_client_train_more_and_is_tried_for_nobody_else(programs: RunPrograms) -> None:
    plan = plan_of(fleet(programs, LIMITS_MB))
    assert {name: taken(plan, name) for name in LIMITS_MB} == {
        "large": ("grow-units0-2", "default"),
        "wide": ("grow-units0-2", "recompute"),
        "medium": ("joint-units1-2", "recompute"),
        "small": ("joint-units2-2", "default"),
        "tiny": (None, "default"),
    }
    alone = RunPrograms(SETTINGS, TrainingSettings(), trades=trades_of("exact"))
    rich = fleet(alone, {"large": 84})
    plan_of(rich)
    (kind,) = rich.kinds
    assert all("recompute" not in own for row in kind.trades.values() for own in row)


def test_other_clients_do_not_change_what_one_does(programs: RunPrograms) -> None:
    together = plan_of(fleet(programs, LIMITS_MB))
    for name, limit in LIMITS_MB.items():
        if name != "tiny":
            assert taken(plan_of(fleet(programs, {name: limit})), name) == taken(together, name)


def test_what_a_client_could_do_has_every_variant_with_its_numbers(programs: RunPrograms) -> None:
    there = fleet(programs, LIMITS_MB)
    (step,) = candidates_in(there, Partition.ending_with([2]), "medium")
    names = [candidate.program for candidate in step]
    assert names[:2] == ["grow-block1", "grow-block1-recompute"]
    first = next(candidate for candidate in step if candidate.plan.fits)
    assert first.program == "joint-units1-2-recompute"
    default = step[names.index("joint-units1-2")]
    assert (default.plan.predicted_peak_bytes or 0) > (first.plan.predicted_peak_bytes or 0)
    assert not default.plan.fits and "needs" in str(default.plan.reason)


def test_variants_that_change_the_result_a_little_come_last_and_only_where_they_are_asked_for() -> None:
    programs = RunPrograms(SETTINGS, TrainingSettings(), trades=trades_of("any"))
    plan = plan_of(fleet(programs, LIMITS_MB))
    assert taken(plan, "wide") == ("grow-units0-2", "recompute")  # exact, though two micro-batches need less
    assert taken(plan, "medium") == ("grow-units0-2", "micro2")
    assert taken(plan, "small") == ("grow-units0-2", "micro4")


def test_a_step_with_momentum_of_its_own_type_has_no_second_one() -> None:
    programs = RunPrograms(SETTINGS, TrainingSettings(momentum_dtype="bfloat16"), trades=trades_of("any"))
    offers = programs.courses(Partition.ending_with([2]))[2][0]
    assert [offer.trade for offer in offers] == ["default", "micro2", "micro4"]
    odd = RunPrograms(ModelSettings(name="cnn", width=8, batch=3), TrainingSettings(), trades=trades_of("any"))
    assert [offer.trade for offer in odd.courses(Partition.ending_with([2]))[2][0]] == ["default", "bfloat16"]


def test_the_table_of_a_run_spares_its_plans(
    programs: RunPrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(fleet(programs, LIMITS_MB))
    programs.write_table(tmp_path / "costs.json")
    again = RunPrograms(SETTINGS, TrainingSettings(), trades=trades_of("exact"))
    assert again.read_table(tmp_path / "costs.json")
    monkeypatch.setattr(run_programs, "run_costs", None)
    monkeypatch.setattr(run_programs, "recomputed_cost", None)
    limits = {name: mb for name, mb in LIMITS_MB.items() if name != "tiny"}  # for which every run is looked at
    assert [taken(plan_of(fleet(again, limits)), n) for n in limits] == [taken(plan, n) for n in limits]


def test_a_table_of_another_model_or_training_is_planned_anew(programs: RunPrograms, tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    programs.ends()
    programs.write_table(path)
    assert read_json(path, Costs).partition is None
    wider = RunPrograms(ModelSettings(name="cnn", width=8, batch=256), TrainingSettings())
    adam = RunPrograms(SETTINGS, TrainingSettings(optimizer="adamw", learning_rate=0.001))
    assert not wider.read_table(path) and not adam.read_table(path)
    assert not programs.read_table(tmp_path / "none.json")
    assert RunPrograms(SETTINGS, TrainingSettings()).read_table(path)


def test_steps_are_fixed_by_hand(run: object, tmp_path: Path) -> None:
    assert callable(run)
    ends = []
    for options in (("--blocks", "2"), ("--partition", "0-0,1-1,2-2"), ("--coverage", "0.9")):
        done = run(*options, "--json", "--costs", str(tmp_path / "costs.json"))
        assert done.exit_code == 0, done.exception
        steps = json.loads(done.stdout)["steps"]
        ends.append([step["last_unit"] for step in steps["steps"]])
        assert steps["wanted"] == (0.9 if options[0] == "--coverage" else COVERAGE)
    assert len(ends[0]) == 2 and ends[1] == [0, 1, 2] and ends[2][-1] == 2
    (tmp_path / "fleet.toml").write_text(FLEET.replace("width", 'partition = "0-0,1-2"\nwidth'))
    by_file, by_hand = (run(*more, "--json").stdout for more in ((), ("--partition", "0-1,2-2")))
    assert [s["last_unit"] for s in json.loads(by_file)["steps"]["steps"]] == [0, 2]
    assert [s["last_unit"] for s in json.loads(by_hand)["steps"]["steps"]] == [1, 2]


def test_the_table_of_a_bundle_is_read_and_stays_as_it_is(run: object, tmp_path: Path) -> None:
    assert callable(run)
    own, costs = tmp_path / "own", tmp_path / "costs.json"
    assert run("--json", "--costs", str(costs)).exit_code == 0
    own.mkdir()
    table = costs.read_text().replace("\n", "\n ")  # the same, in other bytes
    (own / "costs.json").write_text(table)
    (own / "manifest.json").write_text("{}")
    assert run("--json", "--costs", str(own / "costs.json")).exit_code == 0
    assert (own / "costs.json").read_text() == table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--blocks", "9"), "--blocks 9: the model has 3 units; give a number from 1 to 3"),
        (("--blocks", "1", "--partition", "0-2"), "--blocks cannot be combined with --partition"),
        (("--partition", "0-1"), "--partition"),
        (("--costs", "fleet.toml"), "fleet.toml"),
    ],
)
def test_steps_that_cannot_be_are_one_line_and_nothing_is_written(
    run: object, tmp_path: Path, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(run)
    monkeypatch.chdir(tmp_path)
    done = run(*options, "-o", "plan.json")
    assert done.exit_code != 0 and message in str(done.exception) and "\n" not in str(done.exception)
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("option", ["--blocks", "--partition", "--coverage", "--costs"])
def test_what_fixes_steps_needs_a_fleet(option: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["plan", "--bundle", "b", "--profiles", str(tmp_path), option, "1"])
    assert str(done.exception) == f"{option} requires --fleet; give both, or leave it out"
