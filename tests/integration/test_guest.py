"""The virtual machine whose kernel has control groups of version 2 alone, and what is run in it."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from device_profiles.errors import ExecutionError
from tools.cross.machines import ROOT
from tools.guest import __main__ as tool
from tools.guest import machine
from tools.guest.machine import Guest

USER = ROOT / "tools" / "guest" / "user.sh"


@pytest.mark.study
@pytest.mark.timeout(7200)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a root: needs root")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine is emulated on x86-64")
def test_limits_hold_under_control_groups_of_version_2() -> None:
    said: list[str] = []
    tool.prepare()
    assert Guest().run(tool.job_of(tool.TESTS), seconds=7000, told=said.append) == 0
    assert "0::/" in "".join(said)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """One whose disk is there, with a machine that runs the job here."""
    monkeypatch.setattr(machine, "FOLDER", tmp_path / "guest")
    (tmp_path / "guest" / "bookworm").mkdir(parents=True)
    (tmp_path / "guest" / "bookworm" / "disk.img").touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    _emulator(tmp_path, 'sh "$job/run.sh" > "$job/said" 2>&1; echo $? > "$job/status"')
    return Guest()


def _emulator(folder: Path, does: str) -> None:
    program = folder / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\njob={folder}/guest/bookworm/job\necho "$@" > {folder}/words\n{does}\n')
    program.chmod(0o755)


def test_what_a_job_says_is_told_and_its_status_returned(guest: Guest, tmp_path: Path) -> None:
    said: list[str] = []
    assert guest.run("pwd; echo two; exit 3", seconds=60, told=said.append) == 3
    assert "".join(said) == f"{ROOT}\ntwo\n"
    words = (tmp_path / "words").read_text()
    assert f"path={ROOT},mount_tag=repository,security_model=none,readonly=on" in words and "snapshot=on" in words
    begin = (tmp_path / "guest" / "bookworm" / "job" / "begin.sh").read_text()
    assert f"repository '{ROOT}'" in begin and begin.index("/job/run.sh") < begin.index("poweroff")


@pytest.mark.parametrize("does", ["exit 0", "exec sleep 60"])
def test_a_machine_that_says_nothing_is_told_with_its_console(guest: Guest, tmp_path: Path, does: str) -> None:
    _emulator(tmp_path, does)
    with pytest.raises(ExecutionError, match=r"ended without a word, or not in 1 s; see .*console\.txt"):
        guest.run("true", seconds=1, told=lambda text: None)


def test_the_tests_of_limits_are_there_and_the_script_of_a_user_does_what_the_page_says() -> None:
    assert all((ROOT / test).is_file() for test in tool.TESTS)
    assert all(test in tool.job_of(tool.TESTS) for test in tool.TESTS)
    subprocess.run(["sh", "-n", str(USER)], check=True)
    assert "systemd-run --user --scope" in USER.read_text()
    assert "systemd-run --user --scope" in (ROOT / "docs" / "install.md").read_text()
