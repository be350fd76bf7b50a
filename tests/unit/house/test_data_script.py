"""tools/get_fashion_mnist.sh: unpacks what apt-get hands it, and does not fail the demo where there is nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "get_fashion_mnist.sh"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
pytestmark = pytest.mark.skipif(INSTALLED.is_dir(), reason=f"{INSTALLED} is installed: the script has nothing to do")
IMAGES = "train-images-idx3-ubyte.gz"


def _command(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _run(target: Path, commands: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", str(SCRIPT), str(target)], env=environment, capture_output=True, text=True, check=False
    )


def test_a_package_is_unpacked_into_the_folder(tmp_path: Path) -> None:
    _command(tmp_path / "bin", "apt-get", "touch dataset-fashion-mnist_1_all.deb")
    _command(tmp_path / "bin", "dpkg-deb", f'mkdir -p "$3{INSTALLED}" && echo pixels > "$3{INSTALLED}/{IMAGES}"')
    done = _run(tmp_path / "data", tmp_path / "bin")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / IMAGES).read_text() == "pixels\n"


def test_without_the_package_one_line_names_the_data_used_instead(tmp_path: Path) -> None:
    _command(tmp_path / "bin", "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    done = _run(tmp_path / "data", tmp_path / "bin")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "mnist-5k" in done.stderr
    assert not (tmp_path / "data").exists()


def test_data_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    _command(tmp_path / "bin", "apt-get", "touch asked; exit 1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / IMAGES).write_text("mine")
    done = _run(tmp_path / "data", tmp_path / "bin")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "data" / IMAGES).read_text() == "mine"
