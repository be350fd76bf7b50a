"""A wheel for another machine holds nothing but what its name promises, and what it links against is old enough."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from device_profiles.errors import ExecutionError, FormatError
from tools.cross import checks, debian
from tools.cross.checks import check_libraries
from tools.cross.machines import AARCH64, X86_64, Machine
from tools.cross.old_libraries import _defined, _old_names
from tools.cross.pythons import PYTHONS, Python

OWN, STABLE = PYTHONS
NEEDS = b"\0GLIBC_2.17\0GLIBC_2.28\0GLIBC_2.2.5\0GLIBCXX_3.4.21\0CXXABI_1.3.11\0"


def wheel(folder: Path, members: dict[str, int], *, tag: str, needs: bytes = NEEDS) -> Path:
    path = folder / f"profl_edge-0.1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("edge_runtime/__init__.py", "")
        for name, elf in members.items():
            archive.writestr(name, b"\x7fELF" + bytes(14) + elf.to_bytes(2, "little") + needs)
    return path


def tag_of(machine: Machine, python: Python) -> str:
    return f"{python.tag}-{machine.platform}"


def extension(machine: Machine, python: Python) -> str:
    return f"edge_runtime/device/_native{python.suffix(machine)}"


@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: python.tag)
@pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=lambda machine: machine.name)
def test_libraries_of_the_machine_and_python_are_accepted(machine: Machine, python: Python, tmp_path: Path) -> None:
    members = {extension(machine, python): machine.elf, "edge_runtime/device/libexecutorch.so": machine.elf}
    assert check_libraries(wheel(tmp_path, members, tag=tag_of(machine, python)), machine, python) == list(members)


def test_names_are_those_that_python_looks_for() -> None:
    assert OWN.suffix(AARCH64) == ".cpython-311-aarch64-linux-gnu.so"
    assert STABLE.suffix(AARCH64) == ".abi3.so"
    assert tag_of(X86_64, STABLE) == "cp312-abi3-manylinux_2_28_x86_64"


def test_a_library_of_another_machine_is_refused_by_name(tmp_path: Path) -> None:
    members = {extension(AARCH64, OWN): AARCH64.elf, "edge_runtime/device/libexecutorch.so": X86_64.elf}
    with pytest.raises(FormatError, match=r"libexecutorch\.so is for another machine than aarch64"):
        check_libraries(wheel(tmp_path, members, tag=tag_of(AARCH64, OWN)), AARCH64, OWN)


@pytest.mark.parametrize("name", [extension(X86_64, OWN), extension(AARCH64, STABLE)])
def test_a_module_that_python_would_not_find_is_refused(name: str, tmp_path: Path) -> None:
    built = wheel(tmp_path, {name: AARCH64.elf}, tag=tag_of(AARCH64, OWN))
    with pytest.raises(FormatError, match="not a name that Python cp311-cp311 looks for on aarch64"):
        check_libraries(built, AARCH64, OWN)


@pytest.mark.parametrize("asked", ["GLIBC_2.29", "GLIBC_2.34", "GLIBCXX_3.4.25", "CXXABI_1.3.13"])
def test_a_library_that_asks_for_too_new_a_function_is_refused(asked: str, tmp_path: Path) -> None:
    needs = NEEDS + asked.encode() + b"\0"
    built = wheel(tmp_path, {extension(X86_64, OWN): X86_64.elf}, tag=tag_of(X86_64, OWN), needs=needs)
    with pytest.raises(FormatError, match=f"needs {asked}, and the oldest machines have"):
        check_libraries(built, X86_64, OWN)


@pytest.mark.parametrize("tag", ["cp311-cp311-linux_x86_64", tag_of(AARCH64, OWN), tag_of(X86_64, STABLE)])
def test_a_tag_that_promises_something_else_is_refused(tag: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"is not tagged {tag_of(X86_64, OWN)}"):
        check_libraries(wheel(tmp_path, {extension(X86_64, OWN): X86_64.elf}, tag=tag), X86_64, OWN)


def test_a_wheel_without_libraries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no native library"):
        check_libraries(wheel(tmp_path, {}, tag=tag_of(X86_64, OWN)), X86_64, OWN)


def test_a_checker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ExecutionError, match="twine is not installed; wheels need it: pip install --group wheels"):
        checks.check_upload(tmp_path)


def test_the_newest_old_version_of_each_name_is_linked_against() -> None:
    table = """
Symbol table '.dynsym' contains 7 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND memcpy@GLIBC_2.14 (4)
     2: 00000000000a0000    33 FUNC    WEAK   DEFAULT   13 _ZNSs4moveEv@GLIBCXX_3.4
     3: 00000000000a0040    33 FUNC    WEAK   DEFAULT   13 _ZNSs4moveEv@@GLIBCXX_3.4.5
     4: 00000000000a0080    33 FUNC    GLOBAL DEFAULT   13 _ZSt3newv@@GLIBCXX_3.4.29
     5: 0000000000000010     8 TLS     GLOBAL DEFAULT   20 _ZSt11__once_call@@GLIBCXX_3.4.11
     6: 00000000000b0000    16 OBJECT  WEAK   DEFAULT   15 _ZTISt9exception@@CXXABI_1.3
"""
    assert _old_names(table) == [
        ("FUNC", "_ZNSs4moveEv", "GLIBCXX_3.4.5"),
        ("TLS", "_ZSt11__once_call", "GLIBCXX_3.4.11"),
        ("OBJECT", "_ZTISt9exception", "CXXABI_1.3"),
    ]
    assert ".symver profl_name_7, _ZSt11__once_call@@@GLIBCXX_3.4.11\n" in _defined(
        7, "TLS", "_ZSt11__once_call", "GLIBCXX_3.4.11"
    )


def test_without_apt_it_is_said_what_builds_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutionError, match="no apt-get, which brings Python's headers; build wheels on Debian"):
        debian.unpacked(tmp_path / "python", suite="trixie", architecture="arm64", packages=["libpython3.13-dev"])
    assert not (tmp_path / "python").exists()


@pytest.mark.parametrize(("tag", "accepted"), [("2_27", True), ("2_28", True), ("2_31", False)])
def test_auditwheel_may_find_a_wheel_older_than_its_tag_and_not_newer(
    tag: str, accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f'x.whl is consistent with the following\nplatform tag: "manylinux_{tag}_aarch64".'
    monkeypatch.setattr(checks, "_tool", lambda *_: said)
    if accepted:
        checks.check_platform(tmp_path, AARCH64, OWN)
        return
    with pytest.raises(FormatError, match="auditwheel does not call it manylinux_2_28_aarch64 or older"):
        checks.check_platform(tmp_path, AARCH64, OWN)
