"""Hard limits on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.device.limits.cgroups import create_group
from edge_runtime.device.limits.processes import LimitedProcess, run_limited, start_limited

_MEGABYTE = 1 << 20
_FILL = "import sys; data = bytearray(int(sys.argv[1]) << 20); print(len(data) >> 20)"
_REPORT = "from edge_runtime.device.limits.mark import current_limit; print(current_limit())"


def _fill(megabytes: int) -> list[str]:
    return [sys.executable, "-S", "-c", _FILL, str(megabytes)]


@pytest.fixture
def group_permitted() -> None:
    group = create_group(64 * _MEGABYTE)
    if group is None:
        pytest.skip("no control group may be made here: neither version 1 nor version 2 of the memory controller")
    group.remove()


def test_without_a_limit_the_command_just_runs() -> None:
    outcome = run_limited([sys.executable, "-c", "raise SystemExit(3)"], limit_bytes=None)
    assert outcome.returncode == 3
    assert outcome.limit_kind == "none"
    assert outcome.oom_kills == 0


@pytest.mark.parametrize("allow_cgroup", [True, False])
def test_a_command_within_its_limit_ends_well(tmp_path: Path, allow_cgroup: bool) -> None:
    with (tmp_path / "out").open("w") as out:
        outcome = run_limited(_fill(20), limit_bytes=100 * _MEGABYTE, stdout=out, allow_cgroup=allow_cgroup)
    assert outcome.returncode == 0
    assert outcome.oom_kills == 0
    assert outcome.limit_kind != "none"
    assert (tmp_path / "out").read_text() == "20\n"


@pytest.mark.usefixtures("group_permitted")
def test_the_kernel_ends_a_command_above_its_group_and_it_is_counted() -> None:
    outcome = run_limited(_fill(120), limit_bytes=60 * _MEGABYTE)
    assert outcome.limit_kind in ("cgroup-v1", "cgroup-v2")
    assert outcome.returncode == -signal.SIGKILL
    assert outcome.oom_kills == 1
    assert outcome.cgroup_peak_bytes is None or outcome.cgroup_peak_bytes <= 60 * _MEGABYTE


@pytest.mark.usefixtures("group_permitted")
def test_the_group_is_removed_when_the_command_ended() -> None:
    groups: list[Path] = []

    def remember(process: LimitedProcess) -> None:
        assert process._group is not None
        groups.append(process._group.path)
        assert groups[0].is_dir()

    run_limited(_fill(1), limit_bytes=60 * _MEGABYTE, on_start=remember)
    assert not groups[0].exists()


@pytest.mark.usefixtures("group_permitted")
def test_groups_of_makers_that_died_are_removed_by_the_next() -> None:
    program = "from edge_runtime.device.limits.cgroups import create_group; print(create_group(1 << 26).path)"
    made = Path(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    )
    assert made.is_dir()
    run_limited(_fill(1), limit_bytes=60 * _MEGABYTE)
    assert not made.exists()


def test_a_data_limit_makes_the_request_fail_inside_the_command(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as err:
        outcome = run_limited(_fill(120), limit_bytes=60 * _MEGABYTE, stderr=err, allow_cgroup=False)
    assert outcome.limit_kind == "rlimit"
    assert outcome.returncode == 1
    assert "MemoryError" in (tmp_path / "err").read_text()


@pytest.mark.parametrize("limit_bytes", [None, 100 * _MEGABYTE])
def test_the_process_id_is_the_commands_own(tmp_path: Path, limit_bytes: int | None) -> None:
    with (tmp_path / "out").open("w") as out:
        process = start_limited(
            [sys.executable, "-c", "import os; print(os.getpid())"], limit_bytes=limit_bytes, stdout=out
        )
        assert process.outcome().returncode == 0
    assert (tmp_path / "out").read_text().strip() == str(process.pid)
    assert process.poll() == 0


def test_a_killed_command_has_a_signal_for_outcome_and_no_oom_kill() -> None:
    process = start_limited([sys.executable, "-c", "import time; time.sleep(60)"], limit_bytes=100 * _MEGABYTE)
    process.kill()
    outcome = process.outcome()
    assert outcome.returncode == -signal.SIGKILL
    assert outcome.oom_kills == 0


def test_a_process_knows_its_own_limit_but_not_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w") as out:
        run_limited([sys.executable, "-c", _REPORT], limit_bytes=200 * _MEGABYTE, stdout=out, allow_cgroup=False)
    assert path.read_text() == "rlimit\n"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_REPORT!r}], check=True)"
    with path.open("w") as out:
        run_limited([sys.executable, "-c", nested], limit_bytes=200 * _MEGABYTE, stdout=out, allow_cgroup=False)
    assert path.read_text() == "none\n"


def test_the_environment_is_the_one_given(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        run_limited(
            [sys.executable, "-c", "import os; print(os.environ.get('COLOUR'), os.environ.get('HOME'))"],
            limit_bytes=None,
            env={"COLOUR": "blue", "PATH": os.environ["PATH"]},
            stdout=out,
        )
    assert (tmp_path / "out").read_text() == "blue None\n"
