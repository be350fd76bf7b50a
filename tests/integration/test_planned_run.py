"""Method planned from fleet file to model: the server chooses the steps, and clients train suffixes of units."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="bundles are exported with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from safetensors.torch import load_file  # noqa: E402

from edge_runtime.export import models  # noqa: E402
from tests.support import warm  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FLEET = """
[model]
name = "cnn"
width = 16
batch = 256

[data]
sources = ["digits"]
test_examples = 100

[method]
name = "planned"

[training]
steps = 2
learning_rate = 0.02
rounds = 4

[freezing]
max_rounds = 2
"""
LOCAL = """
[[clients]]
name = "large"
limit_mb = 90

[[clients]]
name = "medium"
limit_mb = 47

[[clients]]
name = "small"
limit_mb = 36

[[clients]]
name = "too-small"
limit_mb = 12
"""
# Nobody holds units 0 to 2 together; unit 0 is trained in a step of its own.
VIRTUAL = """
[[clients]]
name = "one"
limit_mb = 43

[[clients]]
name = "two"
limit_mb = 43

[[clients]]
name = "small"
limit_mb = 24

[promises]
base_mb = 0
"""


def _run(engine: str, fleet: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = ["--engine", engine, "--fleet", str(fleet), "-o", str(output), "--no-whole-network", "--json", *more]
    return warm.run(warm.PROFL_SERVER, "run", *options, folder=ROOT)


def _finished(engine: str, text: str, folder: Path) -> Path:
    fleet, output = folder / "fleet.toml", folder / "run"
    fleet.write_text(text)
    done = _run(engine, fleet, output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _finished("local", FLEET + LOCAL, tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _finished("simulation", FLEET + VIRTUAL, tmp_path_factory.mktemp("virtual"))


def _rounds(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()]


def test_real_devices_train_what_they_were_predicted_to_hold(local: Path) -> None:
    steps = json.loads((local / "steps.json").read_text())["steps"]
    assert [step["last_unit"] for step in steps] == [2] and steps[0]["working"] == 3
    plan = json.loads((local / "plan.json").read_text())
    large, medium, small, too_small = plan["steps"][0]["clients"]
    assert large["program"] == "grow-block1" and small["program"] == "joint-units2-2" and not too_small["fits"]
    assert medium["program"] == "joint-units1-2-recompute"  # which does not fit it by default
    assert not large["measured"]  # the calibration's programs are of another bundle
    programs = {path.name for path in (local / "bundle" / "programs").iterdir()}
    assert programs == {
        f"{name}.pte" for name in (large["program"], medium["program"], small["program"], "eval-block1")
    }
    rounds = _rounds(local)
    assert len(rounds) == 4
    for record in rounds:
        assert {c["client"]: c["status"] for c in record["clients"]} == {"large": "ok", "medium": "ok", "small": "ok"}
        assert record["work"] == {
            "large": "grow-units0-2",
            "medium": "joint-units1-2",
            "small": "joint-units2-2",
        }
        assert all(
            c["measured_peak_bytes"] <= c["predicted_peak_bytes"] and not c["oom_kills"] for c in record["clients"]
        )


def test_its_model_is_whole_and_every_unit_has_moved(local: Path) -> None:
    model = models.create("cnn", width=16)
    weights = load_file(local / "model.safetensors")
    model.load_state_dict(weights, strict=True)
    initial = load_file(local / "bundle" / "weights" / "initial.safetensors")
    assert all(not torch.equal(weights[name], initial[name]) for name in weights if name.endswith("weight"))


def test_a_fleet_that_holds_no_whole_network_has_more_steps(virtual: Path) -> None:
    steps = json.loads((virtual / "steps.json").read_text())["steps"]
    assert [step["last_unit"] for step in steps] == [0, 2]
    grown = [(record["stage"], record["block"], record["work"]) for record in _rounds(virtual)]
    first = {"one": "grow-units0-0", "two": "grow-units0-0", "small": "head-units0-0"}
    second = {"one": "grow-units1-2", "two": "grow-units1-2", "small": "joint-units2-2"}
    assert grown == [("grow", 1, first)] * 2 + [("grow", 2, second)] * 2


def test_a_run_goes_on_with_the_steps_that_it_began_with(virtual: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text((virtual.parent / "fleet.toml").read_text())
    assert _run("simulation", fleet, tmp_path / "run").returncode == 0
    path = tmp_path / "run" / "steps.json"
    steps = json.loads(path.read_text()) | {"wanted": 0.06}
    path.write_text(json.dumps(steps))
    assert _run("simulation", fleet, tmp_path / "run", "--resume").returncode == 0
    assert json.loads(path.read_text()) == steps


def test_a_fleet_in_which_nobody_holds_anything_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(FLEET + VIRTUAL.replace("43", "2").replace("24", "1"))
    done = _run("simulation", fleet, tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "none of 3 clients holds any part of the model; give clients more memory, or train a smaller model or batch"
    )
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    assert _run("simulation", fleet, tmp_path / "run").returncode == 1
    assert list((tmp_path / "run").iterdir()) == []
