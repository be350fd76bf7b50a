"""From a job to an exit status: load the native module, do the work, print the report or the one line of an error."""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec

from device_profiles.errors import ExecutionError, ProflError
from device_profiles.streams import ended_by, flushed, open_closed_streams
from edge_runtime.device.limits.mark import current_limit
from edge_runtime.device.worker.text import json_text, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from edge_runtime.device.worker.job import Job

_NO_PROC = ": memory is measured there; mount /proc"
_SIGINT = 2
_SIGKILL = 9


def main(file: int, *, check_only: bool = False) -> int:
    """Do the job in the open `file`, with `check_only` as far as its first step; returns the exit status."""
    open_closed_streams()
    return flushed(_main(file, check_only), lambda line: _fail(line, 1))


def _main(file: int, check_only: bool) -> int:
    try:
        return _run(file, check_only)
    except ProflError as error:
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + _SIGINT)
    except MemoryError:
        return _fail("no memory left; give the process more, or export a smaller batch or block", 1)
    except RuntimeError as error:
        return _fail(f"{error}{_NO_PROC if str(error).startswith('/proc/') else ''}", 1)
    except OSError as error:
        return ended_by(error, lambda line: _fail(line, 1))


def _run(file: int, check_only: bool) -> int:
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb") as source:
        job: Job = marshal.load(source)
    job["check_only"] = check_only
    if job["limit_kind"] == "none":
        job["limit_kind"] = current_limit()
    native = _load_native(job["native"])
    native.settle_allocator()
    if job["parent"] is not None:
        native.end_with_parent(job["parent"], _SIGKILL)
    if job["work"] == "base":
        from edge_runtime.device.worker.benchmark import base_bytes

        print(base_bytes(native, job))
        return 0
    if job["work"] == "train":
        from edge_runtime.device.worker.training import train as work
    elif job["work"] == "bench":
        from edge_runtime.device.worker.benchmark import bench as work
    else:
        from edge_runtime.device.worker.evaluation import evaluate as work
    report, table, status = work(native, job)
    if report is not None:
        print(json_text(report) if job["json"] else table)
    return status


def _load_native(path: str) -> Any:
    name = "edge_runtime.device._native"
    loader = ExtensionFileLoader(name, path)
    try:
        module = loader.create_module(ModuleSpec(name, loader, origin=path))
        loader.exec_module(module)
    except ImportError as error:
        raise ExecutionError(f"the native module cannot be loaded ({error}); install profl-edge again") from None
    return module


def _fail(message: str, status: int) -> int:
    print(f"profl-edge: error: {one_line(message)}", file=sys.stderr)
    return status
