"""Build `profl-train`, the static runner without Python: `python -m tools.cross.runner [--machine aarch64] [-o dist]`.

Needs g++, and for 64-bit ARM Debian's g++-aarch64-linux-gnu; neither ExecuTorch nor Python's headers. A program that
is not what it should be (static, for its machine, under 20 MB) is refused.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from device_profiles.errors import ExecutionError, FormatError, ProflError
from tools.cross.machines import MACHINES, ROOT, Machine

MOST_BYTES = 20 << 20
_ELF = b"\x7fELF"
_PROGRAM_HEADERS, _HEADER_BYTES = slice(32, 40), slice(54, 56)
_HEADER_COUNT, _MACHINE = slice(56, 58), slice(18, 20)
_INTERPRETER = 3
"""The kind of program header that names a dynamic loader."""


def build(name: str, *, folder: Path | None = None, definitions: tuple[str, ...] = ()) -> Path:
    """Build it for the machine of this `name`; where `folder` was used before, only what changed. Returns the program.

    Raises ExecutionError where there is no compiler or it fails, FormatError where the result is no such program.
    """
    machine = MACHINES[name]
    if shutil.which(machine.compiler) is None:
        raise ExecutionError(f"{machine.compiler} is not installed: apt-get install {machine.package}")
    folder = ROOT / "build" / "runner" / name if folder is None else folder
    configure = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), "-DPROFL_RUNNER=ON"]
    configure += [f"-D{definition}" for definition in definitions]
    if machine.toolchain is not None:
        configure.append(f"-DCMAKE_TOOLCHAIN_FILE={machine.toolchain}")
    _run(configure)
    _run(["cmake", "--build", str(folder)])
    program = folder / "profl-train"
    check(program, machine)
    return program


def check(program: Path, machine: Machine) -> None:
    """Raise FormatError where `program` is for another machine, is not static, or is too large."""
    content = program.read_bytes()
    if not content.startswith(_ELF) or int.from_bytes(content[_MACHINE], "little") != machine.elf:
        raise FormatError(f"{program}: is not a program for this machine")
    first, each, count = (
        int.from_bytes(content[field], "little") for field in (_PROGRAM_HEADERS, _HEADER_BYTES, _HEADER_COUNT)
    )
    kinds = [int.from_bytes(content[at : at + 4], "little") for at in range(first, first + each * count, each)]
    if _INTERPRETER in kinds:
        raise FormatError(f"{program}: asks for a dynamic loader, so that it is not static")
    if len(content) > MOST_BYTES:
        raise FormatError(f"{program}: has {len(content)} bytes, more than {MOST_BYTES}")


def _run(command: list[str]) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise ExecutionError("the runner was not built; the compiler's words stand above")


@click.command()
@click.option("--machine", "machines", type=click.Choice(list(MACHINES)), multiple=True, help="[default: all]")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"))
def main(machines: tuple[str, ...], output: Path) -> None:
    """Build profl-train into OUTPUT."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in machines or tuple(MACHINES):
            made = Path(shutil.copy(build(name), output / f"profl-train-{name}"))
            click.echo(f"{made}: {made.stat().st_size / 2**20:.1f} MB")
    except ProflError as error:
        click.echo(f"runner: error: {error}", err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
