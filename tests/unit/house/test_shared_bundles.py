"""Bundles that tests share are exported once, whoever asks first, and stay as they are."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import bundles

ROOT = Path(__file__).resolve().parents[3]
SLOW = """
import time
from pathlib import Path
from tests.support.bundles import once
def make(output):
    time.sleep(0.2)
    output.mkdir()
    with Path({log!r}).open("a") as log:
        log.write("made\\n")
print(once(("what", 1), make))
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a session of its own."""
    monkeypatch.setenv("PROFL_TEST_SHARED", str(tmp_path))
    return tmp_path


def test_processes_that_ask_at_once_have_it_made_once(shared: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW.format(log=str(tmp_path / "log"))]
    asking = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0] for process in asking)
    assert first == second and Path(first.strip()).is_dir() and Path(first.strip()).parent == shared
    assert (tmp_path / "log").read_text() == "made\n"


def test_what_is_asked_for_otherwise_is_made_anew_and_what_fails_is_tried_again(shared: Path) -> None:
    def fail(output: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        bundles.once("a", fail)
    assert bundles.once("a", Path.mkdir) == bundles.once("a", fail) != bundles.once("b", Path.mkdir)


def test_a_worker_has_the_folder_of_its_session_and_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PROFL_TEST_SHARED")
    folder = bundles.begin_session()
    assert folder is not None and os.environ["PROFL_TEST_SHARED"] == str(folder)
    assert bundles.begin_session() is None
    assert bundles.end_session(folder) == [] and not folder.exists()


@pytest.mark.parametrize("change", ["written", "removed", "added"])
def test_a_bundle_that_a_test_changed_is_named(change: str, shared: Path) -> None:
    bundle, untouched = shared / "one", shared / "two"
    for folder in (bundle, untouched):
        folder.mkdir()
        (folder / "w").write_bytes(b"w")
        files = [{"path": "w", "sha256": hashlib.sha256(b"w").hexdigest()}]
        (folder / "manifest.json").write_text(json.dumps({"files": files}))
    path = bundle / ("more" if change == "added" else "w")
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(b"x")
    assert bundles.end_session(shared) == [str(path)]
