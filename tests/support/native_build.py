"""Programs of the native sources, built in the tree that the Python modules were compiled in.

Kernels are compiled once a checkout: `make` did it for the modules, and the runner and the programs of tests are linked
from the same objects. Where there is no such tree, the first test that asks makes one, which takes minutes.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
MODULES = ROOT / "build" / f"{_PYTHON}-{_PYTHON}-linux_{platform.machine()}"
"""Where `make` compiles the modules: `build-dir` of pyproject.toml."""


def programs(*targets: str) -> list[Path]:
    """Build these programs for this machine, one process at a time; returns their paths."""
    with _alone():
        if not (MODULES / "CMakeCache.txt").exists():
            configure(MODULES)
        return build(MODULES, targets)


def configure(folder: Path, *definitions: str) -> None:
    """Prepare a tree in `folder`."""
    chosen = ["CMAKE_BUILD_TYPE=Release", f"Python_EXECUTABLE={sys.executable}", *definitions]
    run(["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), *(f"-D{definition}" for definition in chosen)])


def build(folder: Path, targets: Sequence[str]) -> list[Path]:
    """Build `targets` in the tree of `folder`, of which a second build does only what changed."""
    run(["cmake", "--build", str(folder), "--target", *targets])
    return [folder / target for target in targets]


def run(command: list[str]) -> str:
    """What `command` prints; it finds the tools that are installed beside this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def _alone() -> Iterator[None]:
    MODULES.mkdir(parents=True, exist_ok=True)
    with (MODULES / "tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
