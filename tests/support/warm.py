"""Commands as processes of their own that have PyTorch and the exporter already: forked from one that imported both.

Importing them takes six seconds of a processor, more than most exports. What is tested about the start of a process
itself, its imports or its memory, needs a fresh interpreter: `subprocess`, `device_commands.start`.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
# What is not installed is passed over. torch.export imports the second, third and fourth when it is first called.
_CONTEXT.set_forkserver_preload(
    [
        "torch",
        "torch._dynamo",
        "torch._functorch.aot_autograd",
        "torch.export._trace",
        "edge_runtime.export.targets.native",
        "edge_runtime.export.emit.pte",
        "server.running.run_fleet",
        "tests.support.garbage",
    ]
)
_STREAMS = ("out", "err")
PROFL_EDGE = "edge_runtime.device.cli:main"
PROFL_SERVER = "server.cli:main"


class Process:
    """A command that runs: like `subprocess.Popen`, with its standard output and error in files."""

    def __init__(
        self, program: str, arguments: Sequence[object], *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.args = [program, *map(str, arguments)]
        self._kept = tempfile.TemporaryDirectory(prefix="warm-")
        kept = Path(self._kept.name)
        for name in _STREAMS:
            (kept / name).touch()
        variables = dict(os.environ if environment is None else environment)
        self._process = _CONTEXT.Process(
            target=_enter, args=(program, self.args[1:], str(folder), variables, str(kept)), daemon=False
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        # Who signals the group would else signal the tests.
        while not (kept / "started").exists() and self.poll() is None:
            time.sleep(0.002)

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode`, without waiting."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """`returncode`, once there is one; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said on standard output and error, once it has ended."""
        self.wait(timeout)
        out, err = ((Path(self._kept.name) / name).read_text() for name in _STREAMS)
        return out, err

    def send_signal(self, number: int) -> None:
        """To the process alone; it leads a group of its own, see `os.killpg`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()


def run(
    program: str, *arguments: object, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `module:function` to its end with these arguments; like `subprocess.run` with captured text."""
    process = Process(program, arguments, folder=folder, environment=environment)
    out, err = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _enter(program: str, arguments: list[str], folder: str, variables: dict[str, str], kept: str) -> None:
    os.setsid()
    for number, name in enumerate(_STREAMS, start=1):
        stream = os.open(f"{kept}/{name}", os.O_WRONLY | os.O_APPEND)
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    module, _, function = program.partition(":")
    # As `python -m` does, and PYTHONPATH.
    sys.path[:0] = [folder, *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = sys.orig_argv = [program, *arguments]
    Path(kept, "started").touch()
    sys.exit(getattr(importlib.import_module(module), function)())
