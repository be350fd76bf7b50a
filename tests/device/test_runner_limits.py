"""The limits of `profl-train`: its promise, a control group from outside, and one of its own that ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="a bundle is exported with it")

from edge_runtime.device.limits.cgroups import create_group
from tests.support.device_commands import wait_for
from tests.support.runner import Ran, built_runner, run, write_idx

pytestmark = pytest.mark.timeout(1800)

_MEGABYTE = 1 << 20
_LIMIT = 64 * _MEGABYTE
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
_FILL = ("dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1")  # has few pages beside its buffer


@pytest.fixture(scope="module")
def runner() -> Path:
    return built_runner()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"idx:{write_idx(tmp_path_factory.mktemp('data') / 'idx')}"


@pytest.fixture
def parent() -> Path:
    """The folder in which control groups may be made."""
    group = create_group(_LIMIT)
    if group is None:
        pytest.skip("this user may not make a control group")
    group.remove()
    return group.path.parent


def test_the_promise_is_kept_and_a_limit_of_its_size_is_enough(runner: Path, cnn_bundle: Path, data: str) -> None:
    arguments = (cnn_bundle, "--block", 2, "--data", data, "--steps", 20, "--threads", 2, "--json")
    report = run(runner, *arguments).report()
    assert report["measured_peak_bytes"] <= report["predicted_peak_bytes"]
    group = create_group(_LIMIT)
    kind = "rlimit" if group is None else group.kind
    if group is not None:
        group.remove()
    for _ in range(4):
        limited = run(runner, *arguments, "--memory-limit", f"{report['predicted_peak_bytes']}B").report()
        assert limited["limit_kind"] == kind and limited["loss_last"] == report["loss_last"]
        assert limited["limit_bytes"] == report["predicted_peak_bytes"]
    line = run(runner, *arguments, "--memory-limit", "2MB").refusal()
    assert line.startswith("--memory-limit 2.0MB is below the ") and "grow-block2 needs; raise the limit" in line


def test_the_limit_of_a_control_group_is_held_against_the_promise(runner: Path, cnn_bundle: Path, data: str) -> None:
    for size, status in ((3 * _MEGABYTE, 2), (_LIMIT, 0)):
        group = create_group(size)
        if group is None:
            pytest.skip("this user may not make a control group")
        try:
            enter = ("-c", _ENTER, group.path, runner, cnn_bundle, "--block", 2, "--data", data, "--steps", 2, "--json")
            ran = run(Path("/bin/sh"), *enter)
        finally:
            group.remove()
        if status:
            assert f"control group ({group.kind}) 3.0MB is below the" in ran.refusal()
        else:
            assert ran.report()["limit_bytes"] == size and ran.report()["limit_kind"] == group.kind


@contextmanager
def _endless(runner: Path, bundle: Path, data: str, output: Path) -> Iterator[subprocess.Popen[str]]:
    words = ["--block", 1, "--data", data, "--steps", 10**8, "--lr", "0", "--threads", 1, "--checkpoint-every", 5]
    command = [runner, bundle, *words, "--memory-limit", f"{_LIMIT}B", "-o", output]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(output.with_name(output.name + ".checkpoint"), process)
        yield process
    finally:
        process.kill()
        process.communicate()


def _child_of(process: subprocess.Popen[str]) -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def _ended(process: subprocess.Popen[str]) -> Ran:
    output, errors = process.communicate(timeout=60)
    return Ran(status=process.returncode, output=output, errors=errors)


def test_a_training_that_the_kernel_ends_at_its_limit_leaves_one_line_and_no_group(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, parent: Path
) -> None:
    with _endless(runner, cnn_bundle, data, tmp_path / "u") as process:
        (group,) = parent.glob(f"profl-edge-{process.pid}-*")
        # Something else fills the group, and the kernel is told whom to end for it.
        Path(f"/proc/{_child_of(process)}/oom_score_adj").write_text("1000")
        subprocess.run(["/bin/sh", "-c", _ENTER, group, *_FILL], check=False)
        line = _ended(process).refusal(1)
    assert line == "--memory-limit 64.0MB: the kernel ended the training at this limit"
    assert not group.exists()
    assert (tmp_path / "u.checkpoint").exists()


def test_a_training_that_somebody_kills_leaves_one_line(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, parent: Path
) -> None:
    with _endless(runner, cnn_bundle, data, tmp_path / "u") as process:
        os.kill(_child_of(process), signal.SIGKILL)
        line = _ended(process).refusal(1)
    assert line.startswith("the training process was killed (signal 9)")
    assert not list(parent.glob(f"profl-edge-{process.pid}-*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_reach_the_training_behind_what_waits_for_it(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, parent: Path, number: int, status: int
) -> None:
    with _endless(runner, cnn_bundle, data, tmp_path / "u") as process:
        process.send_signal(number)
        ran = _ended(process)
    assert ran.status == status and "interrupted" in ran.output
    assert not list(parent.glob(f"profl-edge-{process.pid}-*"))


def test_what_waits_is_small_and_the_training_does_not_outlive_it(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, parent: Path
) -> None:
    with _endless(runner, cnn_bundle, data, tmp_path / "u") as process:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        assert int(fields["RssAnon"].split()[0]) << 10 <= 256 << 10
        child = _child_of(process)
    end = time.monotonic() + 30
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    # What it could not remove any more, the next one does: this one, or one of a test that runs at the same time.
    assert run(runner, cnn_bundle, "--block", 1, "--data", data, "--steps", 1, "--memory-limit", "64MB").status == 0
    assert not list(parent.glob(f"profl-edge-{process.pid}-*"))
