"""No file grows past comfort: one of more than 300 lines is a room to cut in two, not a drawer to fill."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MOST_LINES = 300
PLACES = ("device_profiles", "edge_runtime", "profiler", "server", "tools", "tests")


def test_no_source_has_more_than_300_lines() -> None:
    files = [path for place in PLACES for end in ("py", "cpp", "h") for path in (ROOT / place).rglob(f"*.{end}")]
    assert len(files) > 300
    longer = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert not longer
