"""Promises where the kernel gives huge pages to everybody (`always`): a process then has more than it touches.

A study, because it changes the setting of the machine for as long as it runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="a bundle is exported with it")

from tests.support.device_commands import profl_edge
from tests.support.runner import built_runner, run, write_idx

pytestmark = [pytest.mark.study, pytest.mark.timeout(1800)]

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ROOT = Path(__file__).parents[2]
_FILL = "data = bytearray(64 << 20); print(*(line for line in open('/proc/self/smaps_rollup') if 'AnonHuge' in line))"


@pytest.fixture
def always() -> Iterator[None]:
    """Huge pages for everybody; as it was, afterwards."""
    try:
        before = _SETTING.read_text().partition("[")[2].partition("]")[0]
        _SETTING.write_text("always")
    except OSError:
        pytest.skip(f"{_SETTING} cannot be written")
    try:
        yield
    finally:
        _SETTING.write_text(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"idx:{write_idx(tmp_path_factory.mktemp('data') / 'idx')}"


def test_the_setting_gives_another_process_huge_pages(always: None) -> None:
    said = subprocess.run([sys.executable, "-c", _FILL], capture_output=True, text=True, check=True).stdout
    assert int(said.split()[1]) >= 32 << 10


@pytest.mark.parametrize("limit", [(), ("--memory-limit", "64MB")])
def test_the_worker_and_the_runner_keep_their_promises(
    always: None, cnn_bundle: Path, data: str, limit: tuple[str, ...]
) -> None:
    arguments = (cnn_bundle, "--block", 2, "--data", data, "--steps", 20, "--threads", 2, "--json", *limit)
    for report in (profl_edge("train", *arguments).report(), run(built_runner(), *arguments).report()):
        assert report["measured_peak_bytes"] <= report["predicted_peak_bytes"] < 24 << 20


def test_the_profiler_measures_what_is_promised(always: None, cnn_bundle: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    command = [sys.executable, "-m", "profiler", str(cnn_bundle), "--block", "2", "--limit", "64MB", "-o", str(profile)]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)
    costs = json.loads(profile.read_text())["costs"]
    assert costs
    assert all(0 < cost["measured_peak_bytes"] <= cost["predicted_peak_bytes"] for cost in costs)
