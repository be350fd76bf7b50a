"""Run `profl-edge` as real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import warm

_ROOT = Path(__file__).parents[2]
_PROGRAM = [sys.executable, "-m", "edge_runtime.device"]
# Raises where a device command would import a host package.
_GUARDED = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "executorch", "onnx", "torchao"}:
            raise AssertionError(f"a device command imported {name}")
sys.meta_path.insert(0, Guard())
from edge_runtime.device.cli import main
sys.exit(main())
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """An ended command."""

    status: int
    output: str
    errors: str

    def report(self) -> dict[str, Any]:
        """The one JSON object on standard output, of a command that went well."""
        assert self.status == 0, self.errors
        value = json.loads(self.output)
        assert isinstance(value, dict)
        return value

    def refusal(self, status: int) -> str:
        """The one line on standard error, of a command that ended with `status`."""
        assert self.status == status, (self.status, self.output, self.errors)
        lines = self.errors.splitlines()
        assert len(lines) == 1, self.errors
        assert lines[0].startswith("profl-edge: error: ")
        assert self.output == ""
        return lines[0]


def profl_edge(*arguments: object, guarded: bool = False, folder: Path = _ROOT) -> Done:
    """Run to the end, in `folder`. `guarded`: in an interpreter where importing a host package raises.

    Exports are forked from a process that has PyTorch already.
    """
    if arguments[0] == "export" and not guarded:
        exported = warm.run(warm.PROFL_EDGE, *arguments, folder=folder, environment=_environment())
        return Done(status=exported.returncode, output=exported.stdout, errors=exported.stderr)
    program = [sys.executable, "-c", _GUARDED] if guarded else _PROGRAM
    done = subprocess.run(
        [*program, *map(str, arguments)], cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    return Done(status=done.returncode, output=done.stdout, errors=done.stderr)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start and return at once."""
    return subprocess.Popen(
        [*_PROGRAM, *map(str, arguments)],
        cwd=_ROOT,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str], *, seconds: float = 60.0) -> None:
    """Wait until `path` exists while `process` runs."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.002)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT)}
