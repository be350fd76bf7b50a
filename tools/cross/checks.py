"""What the name of a wheel promises, held against the libraries in it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from device_profiles.errors import ExecutionError, FormatError
from tools.cross.machines import C_LIBRARY, CXX_LIBRARY, Machine
from tools.cross.pythons import Python

# ELF: a magic number, and the machine as 16 bits at offset 18.
_ELF = b"\x7fELF"
_MACHINE = slice(18, 20)
# The versions whose symbols are asked for stand among the names in the file.
_ASKED = re.compile(rb"(?<=\0)(GLIBC|GLIBCXX|CXXABI)_(\d+(?:\.\d+)+)(?=\0)")
_OLDEST = {"GLIBC": C_LIBRARY, **CXX_LIBRARY}


def libraries(wheel: Path) -> dict[str, bytes]:
    """Every ELF file in `wheel`."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return {name: content for name, content in files.items() if content.startswith(_ELF)}


def check_libraries(wheel: Path, machine: Machine, python: Python) -> list[str]:
    """The names of the libraries in `wheel`.

    Raises:
        FormatError: its tag or a library in it is of another machine, Python or C library, or it has no libraries.
    """
    tag = f"{python.tag}-{machine.platform}"
    if not wheel.stem.endswith(f"-{tag}"):
        raise FormatError(f"{wheel}: is not tagged {tag}")
    found = libraries(wheel)
    if not found:
        raise FormatError(f"{wheel}: holds no native library")
    for name, content in found.items():
        _check(f"{wheel}: {name}", content, machine, python)
    return list(found)


def _check(where: str, content: bytes, machine: Machine, python: Python) -> None:
    if int.from_bytes(content[_MACHINE], "little") != machine.elf:
        raise FormatError(f"{where} is for another machine than {machine.name}")
    if (".cpython-" in where or ".abi3." in where) and not where.endswith(python.suffix(machine)):
        raise FormatError(f"{where} is not a name that Python {python.tag} looks for on {machine.name}")
    for library, version in _ASKED.findall(content):
        oldest = _OLDEST[library.decode()]
        if tuple(map(int, version.split(b"."))) > oldest:
            asked, allowed = f"{library.decode()}_{version.decode()}", ".".join(map(str, oldest))
            raise FormatError(f"{where} needs {asked}, and the oldest machines have {allowed}")


def check_platform(wheel: Path, machine: Machine, python: Python) -> None:
    """Have auditwheel judge the tag, and abi3audit the stable ABI.

    Raises:
        ExecutionError: a checker is not installed.
        FormatError: it finds that the wheel needs more than its tag says.
    """
    said = " ".join(_tool("auditwheel", "show", str(wheel)).split())
    found = re.search(rf'platform tag: "manylinux_(\d+)_(\d+)_{machine.name}"', said)
    if found is None or (int(found[1]), int(found[2])) > C_LIBRARY:
        raise FormatError(f"{wheel}: auditwheel does not call it {machine.platform} or older: {said}")
    if python.stable:
        _tool("abi3audit", "--strict", str(wheel))


def check_upload(archive: Path) -> None:
    """Have twine judge whether a package index would take `archive`.

    Raises:
        ExecutionError: twine is not installed.
        FormatError: it finds a mistake.
    """
    _tool("twine", "check", "--strict", str(archive))


def _tool(name: str, *arguments: str) -> str:
    if importlib.util.find_spec(name) is None:
        raise ExecutionError(f"{name} is not installed; wheels need it: pip install --group wheels")
    command = [sys.executable, "-m", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FormatError(f"{name} refused {arguments[-1]}: {(done.stdout + done.stderr).strip()}")
    return done.stdout
