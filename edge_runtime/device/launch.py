"""Start the training process: a bare interpreter, so that the promise of a block is spent on the block."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from edge_runtime.device.job import Job
from edge_runtime.device.limits import LimitedProcess, Outcome, run_limited
from edge_runtime.device.memory_files import add_files_in_memory

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
    """Let the training process come as far as its first step; returns its exit status. It wrote what is wrong."""
    checked = job.copy()
    checked["check_only"] = True
    with written(checked) as (command, files):
        return subprocess.run(command, pass_fds=files, stdin=subprocess.DEVNULL, check=False).returncode


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
    add_files_in_memory(job)
    with _unnamed_file() as file:
        marshal.dump(dict(job), file)
        file.flush()
        files = [file.fileno()]
        if job["data"] is not None:
            files += [part[0] for part in job["data"]["parts"]]
        if job["lock"] is not None:
            files.append(job["lock"][1])
        # -I and -S: neither the environment nor site-packages decide what is loaded.
        yield [sys.executable, "-I", "-S", str(_START), str(file.fileno())], files


def _unnamed_file() -> IO[bytes]:
    """A file in memory, gone when both processes have closed it: a job is small, and needs no folder to write to."""
    try:
        return os.fdopen(os.memfd_create("profl-edge-job"), "w+b")
    except (AttributeError, OSError):  # a kernel or a C library without it
        return tempfile.TemporaryFile(prefix="profl-edge-job-")
