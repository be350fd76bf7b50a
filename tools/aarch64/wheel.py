"""Cross-build the device's wheel for 64-bit ARM, on a machine that is none.

    python -m tools.aarch64.wheel [-o dist]

Needs Debian's g++-aarch64-linux-gnu. Python's headers are this interpreter's own, told that the processor is another;
ExecuTorch's library comes from its wheel for that machine, and its headers are the same in both. The wheel is refused
unless every library in it is for that machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

if __package__ in (None, ""):  # run by its path instead of with -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click

from device_profiles.errors import ExecutionError, FormatError, ProflError
from tools.aarch64.libraries import executorch_library

ROOT = Path(__file__).resolve().parents[2]
TOOLCHAIN = Path(__file__).with_name("toolchain.cmake")
COMPILER = "aarch64-linux-gnu-g++"
FOLDER = ROOT / "build" / "aarch64"
# What pyconfig.h says about the processor and not about the width of its types. Only the interpreter's own sources ask.
_X86_ONLY = ("HAVE_GCC_ASM_FOR_X64", "HAVE_GCC_ASM_FOR_X87")
# ELF: a magic number, and the machine as 16 bits at offset 18.
_ELF = b"\x7fELF"
_MACHINE = slice(18, 20)
_AARCH64 = (183).to_bytes(2, "little")


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
    library, headers = executorch_library(FOLDER), python_headers(FOLDER / "python")
    suffix = sysconfig.get_config_var("EXT_SUFFIX").replace("x86_64", "aarch64")
    defined = {
        "CMAKE_TOOLCHAIN_FILE": TOOLCHAIN,
        "PROFL_EXECUTORCH_LIBRARY": library,
        "Python_INCLUDE_DIR": headers,
    }
    settings = [f"--config-settings=cmake.define.{name}={value}" for name, value in defined.items()]
    # The two variables by which a build of a Python extension learns of another machine.
    environment = {**os.environ, "_PYTHON_HOST_PLATFORM": "linux-aarch64", "SETUPTOOLS_EXT_SUFFIX": suffix}
    with tempfile.TemporaryDirectory() as there:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", there, *settings]
        done = subprocess.run([*command, str(ROOT)], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.stderr.write(done.stdout + done.stderr)
            raise ExecutionError("the wheel was not built; the compiler's words stand above")
        (built,) = Path(there).glob("*.whl")
        check(built)
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(built, output / built.name))


def check(wheel: Path) -> list[str]:
    """The libraries in `wheel`.

    Raises:
        FormatError: its tag or a library in it is of another machine, or it has no libraries.
    """
    if not wheel.stem.endswith("-linux_aarch64"):
        raise FormatError(f"{wheel}: is not tagged for 64-bit ARM Linux")
    libraries = []
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                header = member.read(_MACHINE.stop)
            if not header.startswith(_ELF):
                continue
            if header[_MACHINE] != _AARCH64:
                raise FormatError(f"{wheel}: {name} is for another machine than 64-bit ARM")
            if ".cpython-" in name and "aarch64-linux-gnu" not in name:
                raise FormatError(f"{wheel}: {name} is not a name that Python looks for on 64-bit ARM")
            libraries.append(name)
    if not libraries:
        raise FormatError(f"{wheel}: holds no native library")
    return libraries


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
