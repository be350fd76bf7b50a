"""ExecuTorch's runtime library for one machine, out of the wheel of the release whose headers are installed here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

from device_profiles.errors import ExecutionError
from device_profiles.files import atomic_file
from tools.cross.machines import Machine

_MEMBER = "executorch/lib/libexecutorch.so"


def executorch_library(machine: Machine) -> Path:
    """The path of the library, downloaded into the machine's folder unless it is there.

    Raises:
        ExecutionError: the package index has no such wheel, or cannot be reached.
    """
    release = version("executorch").partition("+")[0]
    library = machine.folder / f"executorch-{release}" / "libexecutorch.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as there:
            wheel = zipfile.ZipFile(_download(release, machine.platform, Path(there)))
            with wheel, atomic_file(library) as temporary:
                temporary.write_bytes(wheel.read(_MEMBER))
    return library


def _download(release: str, platform: str, folder: Path) -> Path:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    wanted = ["--platform", platform, "--python-version", python, f"executorch=={release}"]
    done = subprocess.run([*command, *wanted, "-d", str(folder)], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ExecutionError(f"executorch=={release} for {platform} was not downloaded ({reason}); check the network")
    return wheels[0]
