"""Cross-build the device's wheel for 64-bit ARM, on a machine that is none.

    python -m tools.aarch64.wheel [-o dist]

Needs Debian's g++-aarch64-linux-gnu. Python's headers are this interpreter's own, told that the processor is another;
ExecuTorch's library comes from its wheel for that machine, and its headers are the same in both. The wheel is refused
unless every library in it is for that machine, and its tag names the oldest C library that they run with, so that pip
does not install it where it would not load.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

if __package__ in (None, ""):  # run by its path instead of with -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click

from device_profiles.errors import ExecutionError, FormatError, ProflError
from tools.aarch64.libraries import executorch_library

ROOT = Path(__file__).resolve().parents[2]
TOOLCHAIN = Path(__file__).with_name("toolchain.cmake")
_PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
COMPILER = "aarch64-linux-gnu-g++"
FOLDER = ROOT / "build" / "aarch64"
# What pyconfig.h says about the processor and not about the width of its types. Only the interpreter's own sources ask.
_X86_ONLY = ("HAVE_GCC_ASM_FOR_X64", "HAVE_GCC_ASM_FOR_X87")
# ELF: a magic number, and the machine as 16 bits at offset 18.
_ELF = b"\x7fELF"
_MACHINE = slice(18, 20)
_AARCH64 = (183).to_bytes(2, "little")
# The versions of the C library whose symbols are asked for stand among the names in the file.
_C_LIBRARY = re.compile(rb"\0GLIBC_2\.(\d+)(?=[.\0])")


def python_headers(folder: Path) -> Path:
    """A copy of this Python's headers in `folder`, with a pyconfig.h for 64-bit ARM Linux.

    Types of 64-bit Linux have the same sizes on both machines, and Python.h refuses to compile where they do not.

    Raises:
        ExecutionError: this machine is not 64-bit x86 Linux, so that more than the processor would differ.
    """
    if sysconfig.get_platform() != "linux-x86_64":
        raise ExecutionError(f"Python's headers of {sysconfig.get_platform()} do not fit; build on x86_64 Linux")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sysconfig.get_path("include"), folder)
    lines = Path(sysconfig.get_config_h_filename()).read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(tuple(f"#define {name} " for name in _X86_ONLY))]
    (folder / "pyconfig.h").write_text("".join(kept))
    return folder


def build(output: Path) -> Path:
    """Build the wheel into `output`; returns its path."""
    if shutil.which(COMPILER) is None:
        raise ExecutionError(f"{COMPILER} is not installed: apt-get install g++-aarch64-linux-gnu")
    settings = {
        "build-dir": FOLDER / "wheel",
        "cmake.define.CMAKE_TOOLCHAIN_FILE": TOOLCHAIN,
        "cmake.define.PROFL_EXECUTORCH_LIBRARY": executorch_library(FOLDER),
        "cmake.define.Python_INCLUDE_DIR": python_headers(FOLDER / "python"),
    }
    with tempfile.TemporaryDirectory() as there:
        minor = oldest_c_library(_pip_wheel(Path(there) / "untagged", settings))
        # Nothing is compiled again for another name.
        tag = f"{_PYTHON}-{_PYTHON}-manylinux_2_{minor}_aarch64"
        built = _pip_wheel(Path(there) / "tagged", {**settings, "wheel.tags": tag})
        check(built)
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(built, output / built.name))


def _pip_wheel(folder: Path, settings: Mapping[str, str | Path]) -> Path:
    suffix = sysconfig.get_config_var("EXT_SUFFIX").replace("x86_64", "aarch64")
    # The two variables by which a build of a Python extension learns of another machine.
    environment = {**os.environ, "_PYTHON_HOST_PLATFORM": "linux-aarch64", "SETUPTOOLS_EXT_SUFFIX": suffix}
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    options = [f"--config-settings={name}={value}" for name, value in settings.items()]
    done = subprocess.run([*command, *options, str(ROOT)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise ExecutionError("the wheel was not built; the compiler's words stand above")
    (wheel,) = folder.glob("*.whl")
    return wheel


def libraries(wheel: Path) -> dict[str, bytes]:
    """Every ELF file in `wheel`."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return {name: content for name, content in files.items() if content.startswith(_ELF)}


def oldest_c_library(wheel: Path) -> int:
    """The minor version of the oldest GNU C library, 2.x, that has all that the libraries in `wheel` ask for."""
    asked = (_C_LIBRARY.findall(content) for content in libraries(wheel).values())
    return max((int(minor) for versions in asked for minor in versions), default=0)


def check(wheel: Path) -> list[str]:
    """The names of the libraries in `wheel`.

    Raises:
        FormatError: its tag or a library in it is of another machine or C library, or it has no libraries.
    """
    found = libraries(wheel)
    if not found:
        raise FormatError(f"{wheel}: holds no native library")
    for name, content in found.items():
        if content[_MACHINE] != _AARCH64:
            raise FormatError(f"{wheel}: {name} is for another machine than 64-bit ARM")
        if ".cpython-" in name and "aarch64-linux-gnu" not in name:
            raise FormatError(f"{wheel}: {name} is not a name that Python looks for on 64-bit ARM")
    tag = f"{_PYTHON}-{_PYTHON}-manylinux_2_{oldest_c_library(wheel)}_aarch64"
    if not wheel.stem.endswith(f"-{tag}"):
        raise FormatError(f"{wheel}: is not tagged {tag}, which is what its libraries need")
    return list(found)


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"))
def main(output: Path) -> None:
    """Cross-build the device's wheel for 64-bit ARM into OUTPUT."""
    try:
        wheel = build(output)
        click.echo(str(wheel))
        for library in check(wheel):
            click.echo(f"  {library}")
    except ProflError as error:
        click.echo(f"wheel-aarch64: error: {error}", err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
