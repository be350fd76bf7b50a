"""A wheel for 64-bit ARM holds nothing for another machine, and its Python headers know which machine it is."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from device_profiles.errors import FormatError
from tools.aarch64.wheel import check, python_headers

AARCH64, X86_64 = 183, 62
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
TAG = f"{PYTHON}-{PYTHON}-manylinux_2_34_aarch64"
NEEDS = b"\0GLIBC_2.17\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBCXX_3.4.21\0"
EXTENSION = "edge_runtime/device/_native.cpython-311-aarch64-linux-gnu.so"


def wheel(folder: Path, members: dict[str, int], tag: str = TAG) -> Path:
    path = folder / f"profl_edge-0.1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("edge_runtime/__init__.py", "")
        for name, machine in members.items():
            archive.writestr(name, b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + NEEDS)
    return path


def test_libraries_of_the_machine_are_accepted(tmp_path: Path) -> None:
    members = {EXTENSION: AARCH64, "edge_runtime/device/libexecutorch.so": AARCH64}
    assert check(wheel(tmp_path, members)) == list(members)


def test_a_library_of_another_machine_is_refused_by_name(tmp_path: Path) -> None:
    members = {EXTENSION: AARCH64, "edge_runtime/device/libexecutorch.so": X86_64}
    with pytest.raises(FormatError, match=r"libexecutorch\.so is for another machine"):
        check(wheel(tmp_path, members))


def test_a_module_that_python_would_not_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a name that Python looks for"):
        check(wheel(tmp_path, {EXTENSION.replace("aarch64", "x86_64"): AARCH64}))


@pytest.mark.parametrize(
    "tag",
    [
        TAG.replace("aarch64", "x86_64"),
        TAG.replace("manylinux_2_34", "linux"),
        TAG.replace("2_34", "2_17"),
        TAG.replace(f"-{PYTHON}-", "-none-"),
    ],
)
def test_a_tag_that_promises_something_else_is_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(FormatError, match=f"is not tagged {TAG}, which is what its libraries need"):
        check(wheel(tmp_path, {EXTENSION: AARCH64}, tag=tag))


def test_a_wheel_without_libraries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no native library"):
        check(wheel(tmp_path, {}))


@pytest.mark.skipif(sysconfig.get_platform() != "linux-x86_64", reason="headers are made from those of x86_64 Linux")
def test_python_headers_forget_the_processor_and_keep_the_types(tmp_path: Path) -> None:
    headers = python_headers(tmp_path / "include")
    asked = subprocess.run(
        ["g++", "-E", "-dM", "-I", str(headers), "-include", "Python.h", "-x", "c++", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "#define SIZEOF_LONG 8" in asked
    assert "HAVE_GCC_ASM_FOR_X64" not in asked
    assert "HAVE_GCC_ASM_FOR_X87" not in asked
