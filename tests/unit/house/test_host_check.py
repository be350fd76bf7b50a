"""`tools/check_host.sh`: what a machine lacks is said before anything is installed, with the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[3] / "tools" / "check_host.sh"


def _check(folder: Path, python: str, *, venv: Path | None = None) -> tuple[int, str]:
    ended = subprocess.run(
        ["/bin/sh", str(_SCRIPT), python, str(venv or folder / ".venv")],
        env={**os.environ, "PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stderr


def _python(folder: Path, *, version: str = "3.12.1", lacks: str = "nothing") -> str:
    """A stand-in that has all but what it `lacks`: a word of the script's own questions."""
    path = folder / "some-python"
    refused = "version_info" if version < "3.11" else lacks
    path.write_text(
        f'#!/bin/sh\ncase "$2" in *{refused}*) exit 1;; *python_version*) echo {version};; esac\nexit 0\n', "ascii"
    )
    path.chmod(0o755)
    return path.name


def test_a_machine_that_has_everything_is_told_nothing(tmp_path: Path) -> None:
    (tmp_path / "c++").write_text("#!/bin/sh\n")
    (tmp_path / "c++").chmod(0o755)
    assert _check(tmp_path, _python(tmp_path)) == (0, "")


@pytest.mark.parametrize(("lacks", "package"), [("ensurepip", "python3-venv"), ("Python.h", "python3-dev")])
def test_what_is_missing_is_named_with_the_package_that_has_it(lacks: str, package: str, tmp_path: Path) -> None:
    status, said = _check(tmp_path, _python(tmp_path, lacks=lacks))
    assert status == 1 and f"apt install {package}" in said and "some-python" in said


def test_an_old_python_is_refused_at_once(tmp_path: Path) -> None:
    status, said = _check(tmp_path, _python(tmp_path, version="3.10.4"))
    assert status == 1
    assert said.startswith("make: some-python is Python 3.10.4; 3.11 or newer is needed") and said.count("\n") == 1


def test_a_python_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    status, said = _check(tmp_path, "no-python")
    assert status == 1 and said.startswith("make: no-python: not found; install Python 3.11") and said.count("\n") == 1


def test_an_environment_that_works_needs_no_module_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    status, said = _check(tmp_path, _python(tmp_path, lacks="ensurepip"), venv=tmp_path)
    assert "virtual environments" not in said and status in (0, 1)  # 1 where there is no compiler
    half, said = _check(tmp_path, _python(tmp_path, lacks="ensurepip"))
    assert half == 1 and "cannot make virtual environments" in said
