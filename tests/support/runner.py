"""`profl-train`, built for this machine, and data that it and `profl-edge train` read."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests.support.native_build import programs
from tools.cross.machines import MACHINES
from tools.cross.runner import check


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
    """The program for this machine, or the one that PROFL_TEST_RUNNER names, such as a sanitized one. Skips where no
    compiler is."""
    if (given := os.environ.get("PROFL_TEST_RUNNER")) is not None:
        return Path(given).resolve()
    machine = platform.machine()
    if machine not in MACHINES or shutil.which(MACHINES[machine].compiler) is None:
        pytest.skip(f"the runner is not built on {machine} without g++: apt-get install g++")
    (program,) = programs("profl-train")
    check(program, MACHINES[machine])
    return program


def run(program: Path, *arguments: object, **options: Any) -> Ran:
    """Run it to the end."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return Ran(status=done.returncode, output=done.stdout, errors=done.stderr)


def write_idx(
    folder: Path, *, examples: int = 48, size: int = 14, classes: int = 10, part: Literal["train", "t10k"] = "train"
) -> Path:
    """Random images of one channel with labels, as plain IDX files of one part."""
    random = np.random.default_rng(5)
    folder.mkdir(exist_ok=True)
    images = random.integers(0, 256, (examples, size, size), np.uint8)
    labels = random.integers(0, classes, examples).astype(np.uint8)
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        head = bytes((0, 0, 8, array.ndim)) + b"".join(extent.to_bytes(4, "big") for extent in array.shape)
        (folder / name).write_bytes(head + array.tobytes())
    return folder
