"""Limits from outside (a container's) and of the command itself: refused in time, kept, and a kill leaves a line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_profiles.promise import PREPARING_BYTES
from edge_runtime.device.limits.cgroups import MemoryGroup, create_group
from tests.support.device_commands import Done, profl_edge, start, wait_for

_ROOT = Path(__file__).parents[2]
_MEGABYTE = 1 << 20
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
_SUPERVISOR = "profl-supervise"
_FILL = "import sys; data = bytearray(int(sys.argv[1]) << 20)"
Container = Callable[..., Done]


def _supervisor() -> str:
    import edge_runtime.device._native as native

    return str(Path(native.__file__).with_name(_SUPERVISOR))


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    made = create_group(512 * _MEGABYTE)
    if made is None:
        pytest.skip("no control group may be made here: neither version 1 nor version 2 of the memory controller")
    yield made
    made.remove()


def _run_inside(group: MemoryGroup, limit_bytes: int, command: list[str]) -> Done:
    """Run a command in a group with a limit, of which it is told nothing: as in a container."""
    group.limit(limit_bytes)
    done = subprocess.run(
        ["/bin/sh", "-c", _ENTER, str(group.path), *command],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(status=done.returncode, output=done.stdout, errors=done.stderr)


def _commands(bundle: Path) -> dict[str, list[str]]:
    words = {
        "train": ["train", str(bundle), "--block", "1", "--data", "digits", "--steps", "2", "--lr", "0.01"],
        "eval": ["eval", str(bundle), "--data", "digits", "--limit", "16"],
        "bench": ["bench", str(bundle), "--steps", "1"],
    }
    return {name: [sys.executable, "-m", "edge_runtime.device", *words[name], "--json"] for name in words}


@pytest.fixture(scope="module")
def large_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One block that promises more than 33 MB."""
    bundle = tmp_path_factory.mktemp("bundles") / "large"
    export = ["export", "--model", "cnn", "--input", "1x28x28", "--width", "64", "--batch", "64", "--blocks", "1"]
    assert profl_edge(*export, "--no-verify", "-o", bundle).status == 0
    return bundle


@pytest.mark.parametrize("command", ["train", "bench"])
def test_a_container_too_small_for_the_promise_is_refused_in_one_line(
    large_bundle: Path, group: MemoryGroup, command: str
) -> None:
    line = _run_inside(group, 33 * _MEGABYTE, _commands(large_bundle)[command]).refusal(2)
    assert "the memory limit of this process's control group (cgroup-v" in line
    assert re.search(r"33\.0MB is below the \d+\.\d MB that grow-block1 needs", line)


@pytest.mark.parametrize("command", ["train", "eval", "bench"])
def test_a_container_that_the_preparation_would_not_survive_is_refused_in_one_line(
    cnn_bundle: Path, group: MemoryGroup, command: str
) -> None:
    line = _run_inside(group, 24 * _MEGABYTE, _commands(cnn_bundle)[command]).refusal(2)
    assert f"24.0MB is below the {PREPARING_BYTES // _MEGABYTE} MB that reading the bundle and the data takes" in line


@pytest.mark.parametrize("command", ["train", "eval", "bench"])
def test_a_container_as_large_as_the_promise_lets_the_command_live(
    cnn_bundle: Path, group: MemoryGroup, command: str
) -> None:
    report = _run_inside(group, PREPARING_BYTES, _commands(cnn_bundle)[command]).report()
    assert report["measured_peak_bytes"] <= report["predicted_peak_bytes"] <= PREPARING_BYTES
    assert group.oom_kills() == 0
    if command != "eval":
        assert (report["limit_bytes"], report["limit_kind"]) == (PREPARING_BYTES, group.kind)


def test_a_limit_of_ones_own_above_the_containers_does_not_hide_it(large_bundle: Path, group: MemoryGroup) -> None:
    command = [*_commands(large_bundle)["train"], "--memory-limit", "512MB"]
    line = _run_inside(group, 33 * _MEGABYTE, command).refusal(2)
    assert "control group" in line and "33.0MB is below" in line


def test_a_profile_above_the_containers_limit_is_refused(cnn_bundle: Path, tmp_path: Path, group: MemoryGroup) -> None:
    output = tmp_path / "profile.json"
    command = [sys.executable, "-m", "profiler", "run", str(cnn_bundle), "--limit", "200MB", "-o", str(output)]
    done = _run_inside(group, 128 * _MEGABYTE, command)
    assert done.status == 2 and len(done.errors.splitlines()) == 1
    assert "--limit 200.0MB: this process already has a limit of 128.0MB" in done.errors
    command = [*command[:5], "--block", "1", "--no-cached-prefix", "--steps", "1", "-o", str(output)]
    assert _run_inside(group, 128 * _MEGABYTE, command).status == 0
    device = json.loads(output.read_text())["device"]
    assert (device["limit_bytes"], device["limit_kind"]) == (128 * _MEGABYTE, group.kind)


def test_what_a_command_takes_before_it_trains_is_below_what_promises_count(cnn_bundle: Path) -> None:
    measure = (
        "import sys\n"
        "from edge_runtime.device.prepare import launch\n"
        "from edge_runtime.device.cli import main\n"
        "def become(job, **options):\n"
        "    status = open('/proc/self/status').read()\n"
        "    print(next(line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')))\n"
        "    sys.exit(0)\n"
        "launch.become = become\n"
        "sys.exit(main())\n"
    )
    for name, (_, _, _, *words) in _commands(cnn_bundle).items():
        done = subprocess.run(
            [sys.executable, "-c", measure, *words], cwd=_ROOT, capture_output=True, text=True, check=True
        )
        assert int(done.stdout) << 10 <= PREPARING_BYTES, name


def test_a_limit_set_to_what_was_printed_is_accepted_by_every_later_start(cnn_bundle: Path) -> None:
    words = _commands(cnn_bundle)["train"][3:-1]
    table = profl_edge(*words).output
    printed = re.search(r"promised peak +(\d+\.\d) MB", table)
    assert printed is not None
    promised = profl_edge(*words, "--json").report()["predicted_peak_bytes"]
    for limit in (f"{printed[1]}MB", f"{promised}B"):
        for _ in range(4):
            assert profl_edge(*words, "--memory-limit", limit).status == 0, limit


def test_a_training_that_the_kernel_ends_at_its_limit_leaves_one_line_and_no_group(group: MemoryGroup) -> None:
    group.limit(40 * _MEGABYTE)
    done = subprocess.run(
        [
            *(_supervisor(), "--group", group.path, "--events", group.events, "--limit", "--memory-limit 40.0MB"),
            *("--", sys.executable, "-S", "-c", _FILL, "80"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "profl-edge: error: --memory-limit 40.0MB: the kernel ended the training at this limit\n"
    assert not group.path.exists()


def _child_of(pid: int) -> int:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children and b"start.py" in Path(f"/proc/{children[0]}/cmdline").read_bytes():
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError("no training process was started")


def _endless(bundle: Path, output: Path) -> subprocess.Popen[str]:
    words = ["train", bundle, "--block", 1, "--data", "digits", "--steps", 10**8, "--lr", 0.0, "-o", output, "--json"]
    process = start(*words, "--checkpoint-every", 1)
    wait_for(output.with_name(output.name + ".checkpoint"), process)
    return process


def test_a_training_that_somebody_kills_leaves_one_line(cnn_bundle: Path, tmp_path: Path) -> None:
    process = _endless(cnn_bundle, tmp_path / "update.safetensors")
    os.kill(_child_of(process.pid), signal.SIGKILL)
    output, errors = process.communicate(timeout=60)
    line = Done(status=process.returncode, output=output, errors=errors).refusal(1)
    assert "the training process was killed (signal 9)" in line


def test_a_training_does_not_outlive_its_supervisor(cnn_bundle: Path, tmp_path: Path) -> None:
    process = _endless(cnn_bundle, tmp_path / "update.safetensors")
    child = _child_of(process.pid)
    process.kill()
    process.communicate(timeout=60)  # ends when both have closed their output
    end = time.monotonic() + 30
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_waits_beside_a_training_is_small(cnn_bundle: Path, tmp_path: Path) -> None:
    process = _endless(cnn_bundle, tmp_path / "update.safetensors")
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        assert fields["Name"].strip() == "profl-supervise"
        assert int(fields["RssAnon"].split()[0]) << 10 <= 200 << 10
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_fit_says_no_where_train_does(cnn_bundle: Path) -> None:
    words = _commands(cnn_bundle)["train"][3:]
    promised = profl_edge(*words).report()["predicted_peak_bytes"]
    below = promised - _MEGABYTE
    fit = [sys.executable, "-m", "profiler", "fit", str(cnn_bundle), "--block", "1", "--limit", f"{below}B", "--json"]
    found = json.loads(subprocess.run(fit, cwd=_ROOT, capture_output=True, text=True, check=True).stdout)
    first = found[0] if isinstance(found, list) else found["fits"][0]
    assert first["best"] is None
    assert "is below the" in profl_edge(*words, "--memory-limit", f"{below}B").refusal(2)
