"""What a limited command is started as, and how its end is told: without real limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_profiles.contract import LimitKind
from edge_runtime.device.limits import processes
from edge_runtime.device.limits.mark import current_limit, marked
from edge_runtime.device.limits.processes import LimitedProcess, run_limited, start_limited

LIMIT = 3 << 20


class Group:
    """A control group that says what it was asked."""

    kind: LimitKind = "cgroup-v2"
    path = Path("/the/group")

    def __init__(self) -> None:
        self.removed = 0

    def oom_kills(self) -> int:
        return 2

    def peak_bytes(self) -> int:
        return 77

    def remove(self) -> None:
        self.removed += 1


class Started:
    """A process that ends when somebody waits for it."""

    pid = 4711

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command, self.options = command, options
        self.calls: list[Any] = []

    def poll(self) -> int:
        return 9

    def wait(self, timeout: float | None = None) -> int:
        self.calls.append(("wait", timeout))
        return 5

    def send_signal(self, number: int) -> None:
        self.calls.append(("signal", number))

    def kill(self) -> None:
        self.calls.append("kill")


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    """The group that every command gets which may have one."""
    made = Group()
    asked: list[int] = []
    monkeypatch.setattr(made, "asked", asked, raising=False)
    monkeypatch.setattr(processes, "create_group", lambda limit: asked.append(limit) or made)
    monkeypatch.setattr(processes.subprocess, "Popen", Started)
    return made


def _started(process: LimitedProcess) -> Started:
    assert isinstance(process.process, Started)
    return process.process


def test_a_command_enters_its_group_before_it_is_one(group: Group) -> None:
    process = start_limited(["a", "b"], limit_bytes=LIMIT, env={"X": "1"}, pass_fds=(7,))
    started = _started(process)
    assert started.command[:2] == ["/bin/sh", "-c"] and started.command[3:] == ["/the/group", "a", "b"]
    assert started.options["env"] == {"X": "1", "PROFL_EDGE_LIMIT": f"cgroup-v2:{os.getpid()}"}
    assert started.options["pass_fds"] == (7,) and started.options["stdin"] == subprocess.DEVNULL
    assert started.options["process_group"] is None
    assert process.limit_kind == "cgroup-v2" and process.pid == 4711


def test_without_a_group_the_limit_is_one_of_its_data_in_kilobytes(group: Group) -> None:
    process = start_limited(["a"], limit_bytes=LIMIT, allow_cgroup=False, own_group=True)
    assert _started(process).command[3:] == ["3072", "a"] and process.limit_kind == "rlimit"
    assert _started(process).options["process_group"] == 0
    assert _started(process).options["env"].items() >= os.environ.items()


def test_without_a_limit_the_command_is_started_as_it_is(group: Group) -> None:
    process = start_limited(["a"], limit_bytes=None)
    assert _started(process).command == ["a"] and process.limit_kind == "none"
    assert process.outcome().oom_kills == 0 and group.removed == 0


def test_what_is_asked_of_a_process_is_asked_of_the_command(group: Group) -> None:
    process = start_limited(["a"], limit_bytes=LIMIT)
    assert process.poll() == 9 and process.wait(2.0) == 5
    process.send_signal(15)
    process.kill()
    assert _started(process).calls == [("wait", 2.0), ("signal", 15), "kill"]


def test_its_end_is_told_once_its_group_is_gone(group: Group) -> None:
    process = start_limited(["a"], limit_bytes=LIMIT)
    for _ in range(2):
        outcome = process.outcome()
        assert (outcome.returncode, outcome.oom_kills, outcome.cgroup_peak_bytes) == (5, 2, 77)
        assert outcome.limit_kind == "cgroup-v2" and group.removed == 1
    assert _started(process).calls == [("wait", None)]


def test_a_command_that_does_not_start_leaves_no_group(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("no such command")

    monkeypatch.setattr(processes.subprocess, "Popen", refuse)
    with pytest.raises(FileNotFoundError):
        start_limited(["a"], limit_bytes=LIMIT)
    assert group.removed == 1
    with pytest.raises(FileNotFoundError):
        start_limited(["a"], limit_bytes=None)
    assert group.removed == 1


def test_whoever_runs_a_command_sees_it_and_an_interruption_ends_it(group: Group) -> None:
    seen: list[LimitedProcess] = []
    outcome = run_limited(["a"], limit_bytes=LIMIT, on_start=seen.append)
    assert outcome.returncode == 5 and outcome.limit_kind == "cgroup-v2" and len(seen) == 1
    assert run_limited(["a"], limit_bytes=LIMIT, allow_cgroup=False).limit_kind == "rlimit"

    def interrupt(process: LimitedProcess) -> None:
        seen.append(process)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_limited(["a"], limit_bytes=LIMIT, on_start=interrupt)
    assert _started(seen[-1]).calls == ["kill", ("wait", None)] and group.removed == 2


@pytest.mark.parametrize("kind", ["cgroup-v1", "cgroup-v2", "rlimit"])
def test_a_process_is_limited_by_the_mark_of_its_own_parent(kind: LimitKind, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = marked({"A": "b"}, kind)
    assert environment["A"] == "b"
    monkeypatch.setenv("PROFL_EDGE_LIMIT", environment["PROFL_EDGE_LIMIT"])
    assert current_limit() == "none"  # the mark is for what this process starts
    monkeypatch.setattr(os, "getppid", os.getpid)
    assert current_limit() == kind
    monkeypatch.setenv("PROFL_EDGE_LIMIT", f"other:{os.getpid()}")
    assert current_limit() == "none"


def test_an_own_group_leads_a_group_of_processes() -> None:
    command = [sys.executable, "-S", "-c", "import os; raise SystemExit(os.getpgid(0) != os.getpid())"]
    assert start_limited(command, limit_bytes=None, own_group=True).outcome().returncode == 0
