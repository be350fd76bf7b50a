"""The kernels of lesser processors, on this one: the same tests in a process that is told to use them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the reference is PyTorch in float64")

_ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other machines have one set of kernels")
@pytest.mark.parametrize("instruction_set", ["baseline", "avx2"])
def test_kernels_of_an_instruction_set_pass_the_tests_of_the_best(instruction_set: str) -> None:
    environment = {**os.environ, "PROFL_INSTRUCTION_SET": instruction_set, "PYTHONPATH": str(_ROOT)}
    asked = [sys.executable, "-c", "from edge_runtime.device import _native; print(_native.instruction_set())"]
    chosen = subprocess.run(asked, cwd=_ROOT, env=environment, capture_output=True, text=True, check=True)
    if chosen.stdout.strip() != instruction_set:
        pytest.skip(f"this processor has no {instruction_set}")
    files = [str(Path(__file__).with_name(f"test_kernels{name}.py")) for name in ("", "_geometries", "_linear")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "convolution or geometry or linear",
        *files,
    ]
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
