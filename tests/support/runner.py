"""`profl-train`, built for this machine, and data that it and `profl-edge train` read."""

from __future__ import annotations

import fcntl
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.cross.machines import MACHINES, ROOT
from tools.cross.runner import build

FOLDER = ROOT / "build" / "runner"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """An ended command."""

    status: int
    output: str
    errors: str

    def report(self) -> dict[str, Any]:
        """Its JSON, of a command that went well."""
        assert self.status == 0, (self.status, self.errors)
        value = json.loads(self.output)
        assert isinstance(value, dict)
        return value

    def refusal(self, status: int = 2) -> str:
        """Its one line, of a command that ended with `status`."""
        assert self.status == status, (self.status, self.output, self.errors)
        (line,) = self.errors.splitlines()
        assert line.startswith("profl-train: error: ")
        assert self.output == ""
        return line.removeprefix("profl-train: error: ")


def built_runner() -> Path:
    """The program for this machine, with `run_programs` beside it; built where it has changed. Skips where no compiler
    is."""
    machine = platform.machine()
    if machine not in MACHINES or shutil.which(MACHINES[machine].compiler) is None:
        pytest.skip(f"the runner is not built on {machine} without g++: apt-get install g++")
    with _one_at_a_time():
        return build(machine, folder=FOLDER / machine, definitions=("PROFL_FUZZ=ON",))


def run(program: Path, *arguments: object, **options: Any) -> Ran:
    """Run it to the end."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return Ran(status=done.returncode, output=done.stdout, errors=done.stderr)


def write_idx(folder: Path, *, examples: int = 48, size: int = 14, classes: int = 10) -> Path:
    """Random images of one channel with labels, as plain IDX files."""
    random = np.random.default_rng(5)
    folder.mkdir()
    images = random.integers(0, 256, (examples, size, size), np.uint8)
    labels = random.integers(0, classes, examples).astype(np.uint8)
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        head = bytes((0, 0, 8, array.ndim)) + b"".join(extent.to_bytes(4, "big") for extent in array.shape)
        (folder / name).write_bytes(head + array.tobytes())
    return folder


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
