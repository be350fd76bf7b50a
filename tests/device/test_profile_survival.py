"""The profiler outlives what it measures, cleans up behind itself, and goes on where it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_profiles.files import read_json
from device_profiles.profile import DeviceProfile
from edge_runtime.device.limits.cgroups import create_group
from profiler.measure.processes import run_measured

ROOT = Path(__file__).parents[2]
_EATER = "x = [bytearray(b'1') * (1 << 20) for _ in range(400)]"
_SLEEPER = "import time; time.sleep(60)"


def _start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "profiler", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _groups_of(pid: int) -> list[Path]:
    group = create_group(64 << 20)
    if group is None:
        pytest.skip("this test needs permission to make memory control groups")
    parent = group.path.parent
    group.remove()
    return list(parent.glob(f"profl-edge-{pid}-*"))


def _children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_profiler_leaves_no_group_and_no_process(number: int, cnn_bundle: Path, tmp_path: Path) -> None:
    process = _start(cnn_bundle, "--limit", "256MB", "--steps", 100_000_000, "--block", 1, "-o", tmp_path / "p.json")
    try:
        while not (children := _children_of(process.pid)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted; the same command continues" in errors
    assert _groups_of(process.pid) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(tmp_path.iterdir()) == []


def test_a_profiler_that_was_killed_is_continued(cnn_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.json"
    options = [cnn_bundle, "--limit", "256MB", "--steps", 1, "--threads", 1, "-o", output]
    process = _start(*options)
    try:
        while not output.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    before = read_json(output, DeviceProfile)
    assert before.costs
    again = _start(*options, "--json")
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    after = json.loads(said)
    assert len(after["costs"]) == 5
    assert read_json(output, DeviceProfile).costs[: len(before.costs)] == before.costs
    assert f"{before.costs[0].program}: measuring" not in errors
    assert _groups_of(process.pid) == []
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_a_kill_at_the_limit_says_with_how_many_bytes() -> None:
    if create_group_is_forbidden():
        pytest.skip("this test needs permission to make memory control groups")
    ended = run_measured([sys.executable, "-c", _EATER], limit_bytes=64 << 20, watch=True)
    assert ended.outcome.oom_kills >= 1
    assert ended.died_at_bytes is not None and abs(ended.died_at_bytes - (64 << 20)) < 1 << 20
    assert "with" in (ended.does_not_fit() or "") and "bytes charged" in (ended.does_not_fit() or "")


def test_without_control_groups_an_rlimit_holds_and_says_what_was_seen() -> None:
    ended = run_measured([sys.executable, "-c", _EATER], limit_bytes=64 << 20, watch=True, allow_cgroup=False)
    assert ended.outcome.limit_kind == "rlimit"
    assert (ended.does_not_fit() or "").startswith("does not fit")
    assert ended.died_at_bytes is not None and ended.died_at_bytes < 80 << 20


def test_what_takes_too_long_is_ended() -> None:
    started = time.monotonic()
    ended = run_measured([sys.executable, "-c", _SLEEPER], timeout_seconds=0.5)
    assert time.monotonic() - started < 30
    assert ended.timed_out and ended.does_not_fit() is None


def test_the_measured_process_is_what_the_kernel_would_end_first() -> None:
    code = "print(open('/proc/self/oom_score_adj').read())"
    ended = run_measured([sys.executable, "-c", f"import time; time.sleep(.3); {code}"])
    assert int(ended.output) == 1000
    assert int(Path("/proc/self/oom_score_adj").read_text()) < 1000


def create_group_is_forbidden() -> bool:
    group = create_group(64 << 20)
    if group is not None:
        group.remove()
    return group is None


def test_fit_finds_the_largest_batch_with_real_kills(cnn_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "profiler", "fit", str(cnn_bundle), "--block", "2", "--steps", "1", "--json"]
    for limit, fits in (("512MB", True), ("2MB", False)):
        done = subprocess.run(
            [*command, "--limit", limit], cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ)
        )
        assert done.returncode == 0, done.stderr
        (found,) = json.loads(done.stdout)["fits"]
        assert (found["best"] is not None) == fits
        if fits:
            assert found["best"]["batch"] == 8 and found["best"]["peak_bytes"] > 0
        else:
            assert found["trials"][0]["reason"].startswith("does not fit")
