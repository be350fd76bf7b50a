"""The packages that a device's wheel needs, for each machine and Python, so that a device installs without an index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from device_profiles.errors import ExecutionError
from tools.cross.machines import Machine

_PACKAGES = ("click>=8.1", "msgspec>=0.19")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def download_dependencies(folder: Path, machine: Machine) -> None:
    """Download them into `folder`. Raises ExecutionError where the index has none or cannot be reached."""
    for python in PYTHONS:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--no-deps"]
        chosen = ["--platform", f"manylinux2014_{machine.name}", "--platform", machine.platform]
        wanted = ["--python-version", python, "-d", str(folder), *_PACKAGES]
        done = subprocess.run([*command, *chosen, *wanted], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise ExecutionError(f"click and msgspec for Python {python} were not downloaded ({reason})")
