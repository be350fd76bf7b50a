"""A child process of the client: under a limit, ended with the client, paused and stopped as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from device_profiles.errors import ExecutionError
from edge_runtime.device.limits.control_groups import read_text
from edge_runtime.device.limits.processes import LimitedProcess, Outcome, start_limited

STOP_SECONDS = 30.0
"""A training ends with its checkpoint within a step; one that takes longer is killed."""
_OWN_VARIABLES = ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_")
_MOST_LINE = 300
_FIRST_TO_GO = 'echo 800 > /proc/self/oom_score_adj 2> /dev/null; exec "$@"'
"""Where the whole machine runs out of memory, the training goes before the client, which can start it again."""


def _supervisor() -> Path:
    """Beside the native module, which an editable install keeps elsewhere than the sources. Raises ExecutionError."""
    native = find_spec("edge_runtime.device._native")
    if native is None or native.origin is None:
        raise ExecutionError("the native module is not there; install profl-edge again")
    return Path(native.origin).with_name("profl-supervise")


class Child:
    """A command whose output goes to `said` and `complaint`, two files.

    It is started below a supervisor that the kernel kills with the client, so that a killed client leaves no process.
    """

    def __init__(self, command: Sequence[str], *, limit_bytes: int | None, said: Path, complaint: Path) -> None:
        self._complaint = complaint
        self._paused = False
        self._stopping: float | None = None
        environment = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
        with said.open("wb") as stdout, complaint.open("wb") as stderr:
            self._process: LimitedProcess = start_limited(
                ["/bin/sh", "-c", _FIRST_TO_GO, "sh", str(_supervisor()), "--parent", str(os.getpid()), "--", *command],
                limit_bytes=limit_bytes,
                env=environment,
                stdout=stdout,
                stderr=stderr,
                own_group=True,
            )

    @property
    def pid(self) -> int:
        """Of its supervisor."""
        return self._process.pid

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping is not None

    @property
    def paused(self) -> bool:
        """Whether it is kept from running."""
        return self._paused

    def ended(self) -> bool:
        """Whether it has ended; one that was told to and does not is killed."""
        if self._stopping is not None and time.monotonic() > self._stopping:
            self.kill()
        return self._process.poll() is not None

    def pause(self) -> None:
        """Keep it from running; its memory stays."""
        if not self._paused and self._stopping is None:
            self._signal_all(signal.SIGSTOP)
            self._paused = True

    def go_on(self) -> None:
        """Let it run again."""
        if self._paused:
            self._signal_all(signal.SIGCONT)
            self._paused = False

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        if self._stopping is None:
            self.go_on()
            self._process.send_signal(signal.SIGTERM)
            self._stopping = time.monotonic() + STOP_SECONDS

    def wait_stopped(self) -> None:
        """Ask it to end, and wait until it has."""
        self.stop()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()
        self.outcome()

    def kill(self) -> None:
        """End it at once, with all that it started."""
        self._signal_all(signal.SIGKILL)
        self._process.kill()

    def outcome(self) -> Outcome:
        """How it ended."""
        return self._process.outcome()

    def last_words(self) -> str:
        """The last line that it complained of, fit for a report."""
        try:
            with self._complaint.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        text = lines[-1].removeprefix("profl-edge: error: ") if lines else ""
        return "".join(c for c in text if c.isprintable())[:_MOST_LINE]

    def used_seconds(self) -> float:
        """Of processors, by the processes that run now."""
        return sum(_used_seconds(process) for process in _group(self.pid))

    def _signal_all(self, number: int) -> None:
        if self._process.poll() is None:
            with suppress(OSError):
                os.killpg(self.pid, number)


class OwnUse:
    """The processor seconds of this client: its own, those of the child that runs, and of all that have ended.

    Attributes:
        child: that runs now.
    """

    def __init__(self) -> None:
        self.child: Child | None = None

    def seconds(self) -> float:
        """So far; never much less than before."""
        times = os.times()
        running = 0.0 if self.child is None else self.child.used_seconds()
        return times.user + times.system + times.children_user + times.children_system + running


def _group(leader: int) -> Iterator[int]:
    """Processes of the group that `leader` leads."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if os.getpgid(int(entry.name)) == leader:
                    yield int(entry.name)


def _used_seconds(process: int) -> float:
    words = read_text(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
    return sum(int(word) for word in words[11:15]) / os.sysconf("SC_CLK_TCK") if len(words) > 15 else 0.0
