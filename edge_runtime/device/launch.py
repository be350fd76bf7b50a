"""Start the training process: a bare interpreter, so that the promise of a block is spent on the block."""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from device_profiles.errors import ExecutionError
from edge_runtime.device.job import Job
from edge_runtime.device.limits import LimitedProcess, Outcome, run_limited

_START = Path(__file__).parent / "worker" / "start.py"


def become(job: Job) -> NoReturn:
    """Replace this process by the training process: its memory begins anew, its id and parent stay."""
    with written(job) as (command, files):
        for file in files:
            os.set_inheritable(file, True)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(command[0], command)


def check(job: Job) -> int:
    """Let the training process come as far as its first step; returns its exit status. It wrote what is wrong.

    Raises ExecutionError where it was ended by a signal, and wrote nothing.
    """
    checked = job.copy()
    checked["check_only"] = True
    with written(checked) as (command, files):
        status = subprocess.run(command, pass_fds=files, stdin=subprocess.DEVNULL, check=False).returncode
    if status < 0:
        name = job["program"]["name"]
        raise ExecutionError(
            f"{name}: the process that checks it was ended by {signal_name(-status)}; copy the bundle again, or export "
            "it with this release"
        )
    return status


def signal_name(number: int) -> str:
    """A signal for a message: `signal 11 (SIGSEGV)`."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def run(job: Job, limit_bytes: int, on_start: Callable[[LimitedProcess], None]) -> Outcome:
    """Run the job in a process of its own under the limit."""
    with written(job) as (command, files):
        return run_limited(command, limit_bytes=limit_bytes, on_start=on_start, pass_fds=files)


def read(job: Job) -> str:
    """Run the job in a process of its own without a limit; returns what it printed. Raises CalledProcessError."""
    with written(job) as (command, files):
        return subprocess.run(command, pass_fds=files, stdout=subprocess.PIPE, text=True, check=True).stdout


@contextmanager
def written(job: Job) -> Iterator[tuple[list[str], list[int]]]:
    """The command for the job, and the open files it inherits; for who starts it in a way of its own."""
    file: IO[bytes] = tempfile.TemporaryFile(prefix="profl-edge-job-")  # noqa: SIM115  # closed below
    with file:
        marshal.dump(dict(job), file)
        file.flush()
        files = [file.fileno()]
        if job["data"] is not None:
            files += [part[0] for part in job["data"]["parts"]]
        if job["lock"] is not None:
            files.append(job["lock"][1])
        # -I and -S: neither the environment nor site-packages decide what is loaded.
        yield [sys.executable, "-I", "-S", str(_START), str(file.fileno())], files
