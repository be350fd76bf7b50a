"""The study of memory asks the exporter for the fewest bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("executorch", reason="exporting needs executorch: pip install profl-edge[export]")

from device_profiles.errors import ExecutionError  # noqa: E402
from tools.experiments.memory import _export, _fewest  # noqa: E402


def test_the_smallest_arena_is_read_from_what_the_export_says_and_can_be_kept(tmp_path: Path) -> None:
    fewest = _fewest("cnn", 64, ("--block", "1"), tmp_path / "bundle")
    assert re.fullmatch(r"\d+\.\dMB", fewest)
    _export("cnn", 64, tmp_path / "bundle", "--block", "1", "--recompute", fewest)
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_an_export_that_says_something_else_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"cnn: the smallest arena is not in what the export said: .*--block 99"):
        _fewest("cnn", 64, ("--block", "99"), tmp_path / "bundle")
