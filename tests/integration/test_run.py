"""A whole run with real processes: three devices, the `cnn` model, real digits; killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the bundle is exported with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from safetensors.torch import load_file  # noqa: E402

from edge_runtime.export import models  # noqa: E402
from server.engines.local.process import remove_others  # noqa: E402
from tests.support import warm  # noqa: E402
from tests.support.begun_runs import begin  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FLEET = """
[model]
name = "cnn"
width = 4
batch = 16

[data]
sources = ["digits"]
test_examples = 100

[training]
steps = 4
learning_rate = 0.05
min_clients = 1

[freezing]
window = 1
fit_length = 2
max_rounds = 2

[[clients]]
name = "a"
limit_mb = 96

[[clients]]
name = "b"
limit_mb = 90

[[clients]]
name = "too-small"
limit_mb = 8
"""


def _command(fleet: Path, output: Path, *more: str) -> list[str]:
    return ["run", "--fleet", str(fleet), "-o", str(output), "--no-whole-network", "--json", *more]


def _run(fleet: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return warm.run(warm.PROFL_SERVER, *_command(fleet, output, *more), folder=ROOT)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "fleet.toml"
    path.write_text(FLEET)
    return path


@pytest.fixture(scope="module")
def finished(fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "whole"
    command = [sys.executable, "-m", "server", *_command(fleet, output)]  # a fresh one, as a user starts it
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((output / "summary.json").read_text())
    return output


def _begin(finished: Path, fleet: Path, output: Path) -> None:
    """Behind what `finished` has exported and measured, which its own tests look at."""
    begin(output, fleet, bundle=finished / "bundle", profiles=finished / "profiles")


def test_every_block_is_trained_within_the_limits(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [step["block"] for step in summary["steps"]] == [1, 2, 3]
    assert all(step["froze_because"] for step in summary["steps"])
    for client in summary["clients"]:
        assert client["measured_peak_bytes"] <= client["limit_bytes"]
        assert client["oom_kills"] == 0
    assert summary["participation"] == pytest.approx(2 / 3)
    assert next(c for c in summary["clients"] if c["client"] == "too-small")["blocks"] == []


def test_a_device_that_is_too_small_has_no_work_and_a_reason(finished: Path) -> None:
    plan = json.loads((finished / "plan.json").read_text())
    idle = [c for step in plan["steps"] for c in step["clients"] if c["client"] == "too-small"]
    assert all(not c["fits"] and c["program"] is None and c["reason"] for c in idle)


def test_the_assembled_model_is_an_ordinary_state_dict(finished: Path) -> None:
    model = models.create("cnn", width=4)
    model.load_state_dict(load_file(finished / "model.safetensors"), strict=True)


def test_eval_and_pytorch_agree_on_the_assembled_model(finished: Path, tmp_path: Path) -> None:
    from edge_runtime.device.data import open_data

    command = [sys.executable, "-m", "edge_runtime.device", "eval", str(finished / "bundle"), "--data", "digits"]
    command += ["--weights", str(finished / "model.safetensors"), "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    data = open_data("digits", split="test", input_shape=(3, 32, 32))
    import numpy as np

    images = np.empty((len(data), 3, 32, 32), np.float32)
    data.fetch(range(len(data)), images)
    model = models.create("cnn", width=4)
    model.load_state_dict(load_file(finished / "model.safetensors"))
    with torch.no_grad():
        predicted = model.eval()(torch.from_numpy(images)).argmax(1).numpy()
    assert json.loads(said)["accuracy"] == pytest.approx(float((predicted == data.labels).mean()), abs=1e-6)


def test_a_killed_run_resumes_without_losing_or_doubling_a_round(fleet: Path, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    _begin(finished, fleet, output)
    process = warm.Process(warm.PROFL_SERVER, _command(fleet, output), folder=ROOT)
    rounds = output / "rounds.jsonl"
    deadline = time.monotonic() + 240
    while (not rounds.is_file() or rounds.read_bytes().count(b"\n") < 2) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.15)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = _run(fleet, output, "--resume")
    assert again.returncode == 0, again.stderr
    lines = [json.loads(line) for line in rounds.read_bytes().splitlines()]
    assert [line["round"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) == json.loads((output / "summary.json").read_text())["rounds"]
    # The same clients, seeds and threads: the same model, bit by bit (a safetensors header has no fixed order).
    ours, theirs = load_file(output / "model.safetensors"), load_file(finished / "model.safetensors")
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_kept_outputs_of_frozen_blocks_do_not_change_the_model(finished: Path, tmp_path: Path) -> None:
    fleet, output = tmp_path / "fleet.toml", tmp_path / "cached"
    fleet.write_text(FLEET.replace("steps = 4", 'steps = 4\ncache_prefix = "float32"'))
    _begin(finished, fleet, output)
    done = _run(fleet, output)
    assert done.returncode == 0, done.stderr
    assert "outputs of frozen blocks: kept as float32 by 2 of 3 clients" in done.stderr
    ours, expected = (load_file(folder / "model.safetensors") for folder in (output, finished))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert not list(output.rglob("*.features"))  # large, and of no use after the run


def test_too_few_rounds_for_the_steps_are_refused_before_a_client_is_profiled(tmp_path: Path) -> None:
    fleet, output = tmp_path / "fleet.toml", tmp_path / "short"
    fleet.write_text(FLEET.replace("steps = 4", "steps = 4\nrounds = 2"))
    refused = _run(fleet, output)
    assert refused.returncode == 1
    assert "training.rounds 2: the method has 3 stages" in refused.stderr and "profiling" not in refused.stderr
    assert not (output / "profiles").exists() and not (output / "state.json").exists()


def test_clients_whose_time_is_over_send_what_they_have_and_count_by_it(finished: Path, tmp_path: Path) -> None:
    fleet, output = tmp_path / "fleet.toml", tmp_path / "hurried"
    fleet.write_text(FLEET.replace("steps = 4", "steps = 1000000\nmax_seconds = 1.0\nrounds = 3"))
    _begin(finished, fleet, output)
    done = _run(fleet, output)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (output / "rounds.jsonl").read_bytes().splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert line["rejected"] == {} and all(client["status"] == "ok" for client in line["clients"])
        assert line["stopped_early"] == {c["client"]: c["steps"] / 1_000_000 for c in line["clients"]}
        assert all(client["seconds"] < 60 for client in line["clients"])
    assert "stopped early after 0% of its work" in done.stderr


def test_a_stage_keeps_nothing_of_the_stages_before(tmp_path: Path) -> None:
    first = tmp_path / "stage0"
    first.mkdir()
    (first / "block2.features").write_bytes(b"outputs")
    remove_others(first)
    assert first.is_dir()
    remove_others(tmp_path / "stage1")
    assert not first.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [("--resume", "another fleet file"), (None, "continue it with --resume")],
)
def test_a_folder_of_another_run_is_refused(
    change: str | None, message: str, fleet: Path, finished: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(FLEET.replace("steps = 4", "steps = 5"))
    refused = _run(other, finished, *([change] if change else []))
    assert refused.returncode == 2
    assert message in refused.stderr and refused.stderr.count("\n") == 1
