"""The Pythons that wheels are built for: their tags, and their headers out of Debian's packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.cross.debian import unpacked
from tools.cross.machines import Machine


@dataclass(frozen=True, kw_only=True)
class Python:
    """One wheel's Python: a single version, or every one from a version on."""

    tag: str  # of the interpreter and its ABI
    headers: str  # the version whose headers are compiled against
    suite: str  # Debian's release that has them
    stable: bool  # whether only the stable ABI is used

    def suffix(self, machine: Machine) -> str:
        """What Python looks for behind the name of a module."""
        version = self.headers.replace(".", "")
        return ".abi3.so" if self.stable else f".cpython-{version}-{machine.name}-linux-gnu.so"

    def includes(self, machine: Machine) -> list[Path]:
        """The folders of its headers for `machine`, which are downloaded unless they are there.

        Raises:
            ExecutionError: they cannot be had.
        """
        root = unpacked(
            machine.folder / f"python{self.headers}",
            suite=self.suite,
            architecture=machine.debian,
            packages=[f"libpython{self.headers}-dev"],
        )
        include = root / "usr" / "include"
        # Python.h, and what it includes by a path that begins with the machine: pyconfig.h
        return [include / f"python{self.headers}", include]


# Before 3.12 the stable ABI lacks what the binding needs. Headers of a newer version serve for it as well.
PYTHONS = (
    Python(tag="cp311-cp311", headers="3.11", suite="bookworm", stable=False),
    Python(tag="cp312-abi3", headers="3.13", suite="trixie", stable=True),
)
