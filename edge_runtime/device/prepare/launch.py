"""Start the training process: a bare interpreter, so that the promise of a block is spent on the block.

The command that prepared it becomes a supervisor of 0.1 MB, which outlives the training and says what killed it.
"""

from __future__ import annotations

import marshal
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from device_profiles.errors import ExecutionError, PromiseError
from device_profiles.promise import PREPARING_BYTES
from edge_runtime.device.limits.cgroups import create_group
from edge_runtime.device.limits.control_groups import MemoryLimit, memory_limit
from edge_runtime.device.limits.mark import current_limit
from edge_runtime.device.prepare.memory_files import add_files_in_memory
from edge_runtime.device.worker.job import Job

_START = Path(__file__).parents[1] / "worker" / "start.py"
_SUPERVISOR = "profl-supervise"
_MEGABYTE = 1 << 20
_STREAMS = 3
_FILES_TO_START = 2
"""What Python holds open at one time while it starts."""


def become(job: Job, *, limit_bytes: int | None = None, parent: int | None = None) -> NoReturn:
    """Replace this process by the supervisor of the training process: its memory begins anew, its id stays.

    With `limit_bytes` the training runs under this limit, once a run without it has found that the promise fits; the
    limits that this process lives under count in any case. It ends with `parent`, where that started this process.
    """
    outside = memory_limit()
    options = _outside(job, outside)
    if limit_bytes is not None:
        options += _limited(job, limit_bytes)
    if parent is not None:
        options += ["--parent", str(parent)]
    job["parent"] = os.getpid()
    supervisor = Path(job["native"]).with_name(_SUPERVISOR)
    with written(job) as (command, files):
        _check_open_files(len(files))
        _execute([str(supervisor), *options, "--", *command], files)


def take_place(job: Job) -> NoReturn:
    """Replace this process by the training process itself, which lives and ends under the limits of this one."""
    job["parent"] = os.getppid()
    with written(job) as (command, files):
        _execute(command, files)


def _execute(command: list[str], files: list[int]) -> NoReturn:
    for file in files:
        os.set_inheritable(file, True)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(command[0], command)
    except OSError as error:
        raise ExecutionError(f"{command[0]}: {error.strerror or error}; install profl-edge again") from None


def _check_open_files(inherited: int) -> None:
    """Raise ExecutionError where the training process could not even open its interpreter's libraries."""
    needed = _STREAMS + inherited + _FILES_TO_START
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise ExecutionError(
            f"{allowed} open files are allowed, but the training requires {needed}; allow more (ulimit -n)"
        )


def check_room() -> None:
    """Raise PromiseError where this process lives under a limit that its own preparation may not survive."""
    outside = memory_limit()
    if outside is not None and outside.size_bytes < PREPARING_BYTES:
        raise PromiseError(
            f"{_name(outside)} {outside.size_bytes / _MEGABYTE:.1f}MB is below the {PREPARING_BYTES // _MEGABYTE} MB "
            "that reading the bundle and the data takes before the training starts; raise the limit"
        )


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


def _outside(job: Job, outside: MemoryLimit | None) -> list[str]:
    """Note the limit that this process lives under in the job; returns the supervisor's options for it."""
    job["limit_kind"] = current_limit()
    if outside is None:
        return []
    if job["limit_bytes"] is None or outside.size_bytes <= job["limit_bytes"]:
        job["limit_bytes"], job["limit_name"] = outside.size_bytes, _name(outside)
    job["limit_kind"] = outside.kind
    return ["--limit", f"{_name(outside)} {outside.size_bytes / _MEGABYTE:.1f}MB", "--events", str(outside.events)]


def _limited(job: Job, limit_bytes: int) -> list[str]:
    """Note the limit of the training itself; returns the supervisor's options for it."""
    name = "--memory-limit"
    if job["limit_bytes"] is None or limit_bytes < job["limit_bytes"]:
        job["limit_bytes"], job["limit_name"] = limit_bytes, name
    group = create_group(limit_bytes)
    options = ["--check", "check", "--limit", f"{name} {limit_bytes / _MEGABYTE:.1f}MB"]
    if group is None:
        job["limit_kind"] = "rlimit"
        return [*options, "--data-limit", str(limit_bytes)]
    job["limit_kind"] = group.kind
    return [*options, "--group", str(group.path), "--events", str(group.events)]


def _name(limit: MemoryLimit) -> str:
    return f"the memory limit of this process's control group ({limit.kind})"


def _unnamed_file() -> IO[bytes]:
    """A file in memory, gone when both processes have closed it: a job is small, and needs no folder to write to."""
    try:
        return os.fdopen(os.memfd_create("profl-edge-job"), "w+b")
    except (AttributeError, OSError):  # a kernel or a C library without it
        return tempfile.TemporaryFile(prefix="profl-edge-job-")
