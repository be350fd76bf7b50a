"""The machines that wheels are built for, and what their tools call them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The oldest C library that wheels load with, and the oldest versions of the C++ library that came with it. They are
# those of manylinux_2_28; ExecuTorch's own library needs nearly as much.
C_LIBRARY = (2, 28)
CXX_LIBRARY = {"GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of processor under Linux with the GNU C library."""

    name: str  # as in a wheel's tag and in Python's names
    elf: int  # e_machine of its files
    debian: str  # Debian's name of the architecture
    compiler: str  # the g++ that compiles for it, on x86-64
    package: str  # Debian's package of the compiler
    toolchain: Path | None = None  # CMake's, where the machine is not the one that builds

    @property
    def platform(self) -> str:
        """The last part of a wheel's tag."""
        return f"manylinux_{C_LIBRARY[0]}_{C_LIBRARY[1]}_{self.name}"

    @property
    def folder(self) -> Path:
        """Where everything lies that is downloaded or built for it."""
        return ROOT / "build" / "cross" / self.name


X86_64 = Machine(name="x86_64", elf=62, debian="amd64", compiler="g++", package="g++")
AARCH64 = Machine(
    name="aarch64",
    elf=183,
    debian="arm64",
    compiler="aarch64-linux-gnu-g++",
    package="g++-aarch64-linux-gnu",
    toolchain=Path(__file__).with_name("aarch64.cmake"),
)
MACHINES = {machine.name: machine for machine in (X86_64, AARCH64)}
