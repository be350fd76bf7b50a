"""How a process stands behind others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edge_runtime.device.limits.priority import LEAST_URGENT, be_nice


def test_niceness_never_falls_and_is_never_below_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    level = 5

    def nice(more: int) -> int:
        nonlocal level
        level += more
        return level

    monkeypatch.setattr(os, "nice", nice)
    for asked, expected in ((None, 5), (3, 5), (12, 12), (19, 19), (0, 19)):
        be_nice(asked)
        assert level == expected


def test_the_least_urgent_is_what_the_kernel_gives_to_whoever_asks_for_more() -> None:
    command = [sys.executable, "-S", "-c", "import os; print(os.nice(1000))"]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == LEAST_URGENT
