"""Build the wheels of the device, for x86-64 and 64-bit ARM, on an x86-64 machine.

    python -m tools.cross.wheel [-o dist] [--machine NAME] [--python TAG]

For each machine there is a wheel for Python 3.11, and one for 3.12 and all later versions. They load where the C
library is as old as `machines.C_LIBRARY` says, whatever the one here is. Headers of Python are those of Debian's
packages; ExecuTorch's library comes from its wheel for the machine, and its headers are the same in all.

Needs g++ for each machine, apt on Debian 12 or newer, and `pip install --group wheels`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

if __package__ in (None, ""):  # run by its path instead of with -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click

from device_profiles.errors import ExecutionError, ProflError
from tools.cross.checks import check_libraries, check_platform, check_upload
from tools.cross.dependencies import download_dependencies
from tools.cross.libraries import executorch_library
from tools.cross.machines import MACHINES, ROOT, Machine
from tools.cross.old_libraries import old_libraries
from tools.cross.pythons import PYTHONS, Python


def build(output: Path, machine: Machine, python: Python) -> Path:
    """Build one wheel into `output`, check it, and return its path.

    Raises:
        ExecutionError: something that is needed is missing, or a tool fails.
        FormatError: the wheel does not keep what its name promises.
    """
    with tempfile.TemporaryDirectory() as there:
        built = _pip_wheel(Path(there), machine, python)
        check_libraries(built, machine, python)
        check_platform(built, machine, python)
        check_upload(built)
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(built, output / built.name))


def _settings(machine: Machine, python: Python) -> Mapping[str, str | Path]:
    # A static archive that lends what an old C++ library lacks keeps its names to itself.
    linker = f"-L{old_libraries(machine)} -Wl,--exclude-libs,libstdc++.a"
    settings: dict[str, str | Path] = {
        # One tree for all Pythons: the kernels are compiled once a machine.
        "build-dir": machine.folder / "wheel",
        "wheel.tags": f"{python.tag}-{machine.platform}",
        "cmake.define.PROFL_EXECUTORCH_LIBRARY": executorch_library(machine),
        "cmake.define.PROFL_PYTHON_HEADERS": ";".join(map(str, python.includes(machine))),
        "cmake.define.PROFL_STABLE_ABI": "ON" if python.stable else "OFF",
        "cmake.define.CMAKE_SHARED_LINKER_FLAGS": linker,
        "cmake.define.CMAKE_MODULE_LINKER_FLAGS": linker,
    }
    if machine.toolchain is not None:
        settings["cmake.define.CMAKE_TOOLCHAIN_FILE"] = machine.toolchain
    return settings


def _pip_wheel(folder: Path, machine: Machine, python: Python) -> Path:
    # The two variables by which a build of a Python extension learns of another machine.
    other = {"_PYTHON_HOST_PLATFORM": f"linux-{machine.name}", "SETUPTOOLS_EXT_SUFFIX": python.suffix(machine)}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    options = [f"--config-settings={name}={value}" for name, value in _settings(machine, python).items()]
    environment = {**os.environ, **other, "PATH": path}
    done = subprocess.run([*command, *options, str(ROOT)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise ExecutionError("the wheel was not built; the compiler's words stand above")
    (wheel,) = folder.glob("*.whl")
    return wheel


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"))
@click.option("--machine", type=click.Choice(list(MACHINES)), multiple=True, help="Default: each.")
@click.option("--python", type=click.Choice([python.tag for python in PYTHONS]), multiple=True, help="Default: each.")
def main(output: Path, machine: tuple[str, ...], python: tuple[str, ...]) -> None:
    """Build the device's wheels into OUTPUT, and download beside them what they need."""
    try:
        for name in machine or MACHINES:
            for chosen in PYTHONS:
                if not python or chosen.tag in python:
                    click.echo(str(build(output, MACHINES[name], chosen)))
            download_dependencies(output, MACHINES[name])
    except ProflError as error:
        click.echo(f"wheels: error: {error}", err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
