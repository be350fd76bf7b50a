"""A program that is called the runner for a machine is one: for its processor, without a dynamic loader, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_profiles.errors import ExecutionError, FormatError
from tools.cross import runner
from tools.cross.machines import MACHINES
from tools.cross.runner import build, check

AARCH64 = MACHINES["aarch64"]


def program(folder: Path, *, elf: int = AARCH64.elf, kinds: tuple[int, ...] = (1, 6), padding: int = 0) -> Path:
    head = bytearray(64)
    head[:4], head[18:20] = b"\x7fELF", elf.to_bytes(2, "little")
    head[32:40], head[54:56], head[56:58] = (
        (64).to_bytes(8, "little"),
        (56).to_bytes(2, "little"),
        bytes((len(kinds), 0)),
    )
    path = folder / "profl-train"
    path.write_bytes(bytes(head) + b"".join(kind.to_bytes(4, "little") + bytes(52) for kind in kinds) + bytes(padding))
    return path


def test_a_static_program_for_the_machine_passes(tmp_path: Path) -> None:
    check(program(tmp_path), AARCH64)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"elf": 62}, "is not a program for this machine"),
        ({"kinds": (1, 3)}, "asks for a dynamic loader"),
        ({"padding": 20 << 20}, "more than 20971520"),
    ],
)
def test_another_is_refused(tmp_path: Path, options: dict[str, int], line: str) -> None:
    with pytest.raises(FormatError, match=line):
        check(program(tmp_path, **options), AARCH64)  # type: ignore[arg-type]


def test_a_missing_compiler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.shutil, "which", lambda name: None)
    with pytest.raises(
        ExecutionError, match=r"aarch64-linux-gnu-g\+\+ is not installed: apt-get install g\+\+-aarch64"
    ):
        build("aarch64")
