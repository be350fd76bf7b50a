"""Run Python with the native modules of `make sanitize`: `python -m tools.fuzz.sanitized -m tools.fuzz.geometries`.

The modules lie in a copy of the sources, because those of the sources are the ones that everything else uses. A fault
ends the process with the sanitizer's report.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "build" / "sanitize" / "tree"
_PACKAGES = ("device_profiles", "edge_runtime", "profiler", "server", "tests", "tools")


def copy_sources() -> None:
    """Everything but native modules, which CMake installs beside it."""
    for package in _PACKAGES:
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / package, TREE / package, ignore=ignored, dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", TREE)


def environment() -> dict[str, str]:
    """Of a process that loads sanitized modules into a Python that is not.

    The sanitizer's library must come first, and then that of exceptions, which it looks for when it begins. Python
    never frees some of its memory, and other packages' libraries are none of ours: nobody looks for leaks, nor at how
    they pair their allocations. The paths are this process's, because `-S` leaves out what an editable install would
    put in front of the copy.
    """
    return {
        **os.environ,
        "LD_PRELOAD": f"{_library('libasan.so')} {_library('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONPATH": os.pathsep.join([str(TREE), *(path for path in sys.path if path and Path(path) != ROOT)]),
    }


def _library(name: str) -> str:
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Copy the sources and run."""
    if not list(TREE.glob("edge_runtime/device/_operators.*.so")):
        print("tools.fuzz.sanitized: there are no sanitized modules; run `make sanitize`", file=sys.stderr)
        return 2
    copy_sources()
    return subprocess.run([sys.executable, "-S", *sys.argv[1:]], cwd=TREE, env=environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
