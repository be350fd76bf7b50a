"""The study of memory asks the exporter for the fewest bytes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("executorch", reason="exporting needs executorch: pip install profl-edge[export]")

from device_profiles.errors import ExecutionError  # noqa: E402
from tests.support import warm  # noqa: E402
from tools.experiments import memory  # noqa: E402
from tools.experiments.memory import _export, _fewest  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _from_a_process_that_has_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, check: bool, **streams: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "edge_runtime.device"]
        done = warm.run(warm.PROFL_EDGE, *command[3:], folder=ROOT)
        if check:
            done.check_returncode()
        return done

    monkeypatch.setattr(memory.subprocess, "run", run)


def test_the_smallest_arena_is_read_from_what_the_export_says_and_can_be_kept(tmp_path: Path) -> None:
    fewest = _fewest("cnn", 64, ("--block", "1"), tmp_path / "bundle")
    assert re.fullmatch(r"\d+\.\dMB", fewest)
    _export("cnn", 64, tmp_path / "bundle", "--block", "1", "--recompute", fewest)
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_an_export_that_says_something_else_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"cnn: the smallest arena is not in what the export said: .*--block 99"):
        _fewest("cnn", 64, ("--block", "99"), tmp_path / "bundle")
