"""Run a command under a hard memory limit of the operating system.

A control group where this user may make one: it counts what the process really holds. Otherwise `RLIMIT_DATA`, which
counts what the process asked for, so that it is the stricter of the two; a request above it fails inside the process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from device_profiles.contract import LimitKind
from edge_runtime.device.limits.cgroups import MemoryGroup, create_group
from edge_runtime.device.limits.mark import marked

# The shell enters the group (or takes the limit) before exec, so that the command never lived outside of it; its own
# memory is gone with the exec.
_ENTER_GROUP = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
_TAKE_RLIMIT = 'ulimit -d "$0" && exec "$@"'
_Stream = int | IO[Any] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a limited command ended.

    Attributes:
        returncode: exit status, or minus the number of the signal that ended it.
        limit_kind: how the limit was enforced; `none` without a limit.
        oom_kills: processes that the kernel killed at the limit (control groups only).
        cgroup_peak_bytes: highest charge of the control group, pages of files included; None without one.
    """

    returncode: int
    limit_kind: LimitKind
    oom_kills: int
    cgroup_peak_bytes: int | None


class LimitedProcess:
    """A started command. Call `outcome` in the end: it waits and removes the control group."""

    def __init__(self, process: subprocess.Popen[Any], kind: LimitKind, group: MemoryGroup | None) -> None:
        self.process = process
        self.limit_kind = kind
        self._group = group
        self._outcome: Outcome | None = None

    @property
    def pid(self) -> int:
        """Process id of the command itself: the shell that entered the limit became it."""
        return self.process.pid

    def poll(self) -> int | None:
        """Return code, None while it runs."""
        return self.process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when the command has ended."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the command at once."""
        self.process.kill()

    def outcome(self) -> Outcome:
        """Wait for the end, remove the control group, and say how it went."""
        if self._outcome is None:
            returncode = self.process.wait()
            oom_kills, peak = 0, None
            if self._group is not None:
                oom_kills, peak = self._group.oom_kills(), self._group.peak_bytes()
                self._group.remove()
            self._outcome = Outcome(
                returncode=returncode, limit_kind=self.limit_kind, oom_kills=oom_kills, cgroup_peak_bytes=peak
            )
        return self._outcome


def start_limited(
    argv: Sequence[str],
    *,
    limit_bytes: int | None,
    env: Mapping[str, str] | None = None,
    stdout: _Stream = None,
    stderr: _Stream = None,
    allow_cgroup: bool = True,
    pass_fds: Sequence[int] = (),
    own_group: bool = False,
) -> LimitedProcess:
    """Start `argv` under `limit_bytes` (None: no limit) and return at once.

    Streams and `pass_fds` are as for `subprocess.Popen`. `own_group`: the command leads a process group, which what a
    terminal sends does not reach.
    """
    group = create_group(limit_bytes) if limit_bytes is not None and allow_cgroup else None
    kind: LimitKind = "none"
    command = list(argv)
    if group is not None:
        kind = group.kind
        command = ["/bin/sh", "-c", _ENTER_GROUP, str(group.path), *argv]
    elif limit_bytes is not None:
        kind = "rlimit"
        command = ["/bin/sh", "-c", _TAKE_RLIMIT, str(limit_bytes // 1024), *argv]
    try:
        process = subprocess.Popen(
            command,
            env=marked(dict(os.environ if env is None else env), kind),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            process_group=0 if own_group else None,
        )
    except BaseException:
        if group is not None:
            group.remove()
        raise
    return LimitedProcess(process, kind, group)


def run_limited(
    argv: Sequence[str],
    *,
    limit_bytes: int | None,
    env: Mapping[str, str] | None = None,
    stdout: _Stream = None,
    stderr: _Stream = None,
    on_start: Callable[[LimitedProcess], None] | None = None,
    allow_cgroup: bool = True,
    pass_fds: Sequence[int] = (),
) -> Outcome:
    """Run `argv` under `limit_bytes` and wait for its end. `on_start` is called with the started process."""
    process = start_limited(
        argv,
        limit_bytes=limit_bytes,
        env=env,
        stdout=stdout,
        stderr=stderr,
        allow_cgroup=allow_cgroup,
        pass_fds=pass_fds,
    )
    try:
        if on_start is not None:
            on_start(process)
        return process.outcome()
    except BaseException:
        process.kill()
        process.outcome()
        raise
