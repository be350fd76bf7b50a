"""Run one command to be measured: under a limit when there is one, watched from outside, its output kept."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.device.limits.processes import LimitedProcess, Outcome, start_limited
from profiler.measure.watch import ProcessWatch, Watched

_SIGKILL = -9


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """An ended command. `watched` is None where nobody watched; `timed_out` when it was ended for taking too long."""

    outcome: Outcome
    output: bytes
    complaint: str
    watched: Watched | None = None
    timed_out: bool = False
    minor_faults: int | None = None
    major_faults: int | None = None

    @property
    def last_line(self) -> str:
        """What it complained of in the end, fit for a report: one line of printable characters."""
        lines = self.complaint.strip().splitlines()
        text = lines[-1].removeprefix("profl-edge: error: ") if lines else f"exit status {self.outcome.returncode}"
        return "".join(c for c in text if c.isprintable())[:300]

    def does_not_fit(self) -> str | None:
        """Why it did not fit into its memory, None where it went well or failed for another reason."""
        peak = self.died_at_bytes
        at = "" if peak is None else f" with {peak} bytes charged"
        outcome = self.outcome
        if outcome.oom_kills:
            return f"does not fit: killed at the limit{at}"
        if self.timed_out:
            return "does not fit: no progress at the limit" if outcome.limit_kind != "none" else None
        if outcome.returncode == _SIGKILL:
            return f"does not fit: killed{at}"
        # An rlimit makes a request fail, which can end a process anywhere on its way; only status 2 is surely not
        # memory.
        if outcome.limit_kind == "rlimit" and outcome.returncode not in (0, 2):
            return f"does not fit: {self.last_line}"
        return None

    @property
    def died_at_bytes(self) -> int | None:
        """The group's highest charge, else the highest resident memory that was seen."""
        if self.outcome.cgroup_peak_bytes is not None:
            return self.outcome.cgroup_peak_bytes
        return self.watched.peak_bytes if self.watched is not None else None


def run_measured(
    command: Sequence[str],
    *,
    limit_bytes: int | None = None,
    watch: bool = False,
    timeout_seconds: float | None = None,
    allow_cgroup: bool = True,
    pass_fds: Sequence[int] = (),
) -> Ended:
    """Run `command` to its end; where the machine runs out of memory, it is ended before this process is."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = start_limited(
            command,
            limit_bytes=limit_bytes,
            stdout=output,
            stderr=errors,
            allow_cgroup=allow_cgroup,
            pass_fds=pass_fds,
        )
        timed_out = False
        try:
            _prefer_to_kill(process.pid)
            with ProcessWatch(process.pid, started=started) if watch else nullcontext() as watched:
                timed_out = not _ended_within(process, timeout_seconds)
            outcome = process.outcome()
        except BaseException:
            process.kill()
            process.outcome()
            raise
        output.seek(0)
        errors.seek(0)
        complaint = errors.read().decode(errors="replace")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Ended(
            outcome=outcome,
            output=output.read(),
            complaint=complaint,
            watched=watched,
            timed_out=timed_out,
            minor_faults=after.ru_minflt - before.ru_minflt,
            major_faults=after.ru_majflt - before.ru_majflt,
        )


def _ended_within(process: LimitedProcess, timeout_seconds: float | None) -> bool:
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return False
    return True


def _prefer_to_kill(pid: int) -> None:
    """Where the whole machine runs out of memory, the kernel shall end what is measured and not the profiler."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
