"""A processor that is slowed down while it trains, on machines made of files; and niceness, huge pages and swap."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.device import _native
from edge_runtime.device.worker import heat
from edge_runtime.device.worker.heat import Heat
from edge_runtime.device.worker.report import step_table, swapped_bytes

HIGHEST = 2_400_000
PR_GET_THP_DISABLE = 42


class Board:
    """Four cores and two sensors below a folder, and the time between two looks."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._now = 0.0
        monkeypatch.setattr(heat.time, "monotonic", lambda: self._now)
        self._write("sys/devices/system/cpu/online", "0-3")
        self.is_at([HIGHEST] * 4, [50.0, 61.5])
        for core in range(4):
            self._write(f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq", HIGHEST)
        self.heat = Heat(f"{root}/")

    def is_at(self, clocks: list[int], celsius: list[float]) -> None:
        for core, clock in enumerate(clocks):
            self._write(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", clock)
        for zone, degrees in enumerate(celsius):
            self._write(f"sys/class/thermal/thermal_zone{zone}/temp", round(degrees * 1000))

    def look(self, times: int = 1, *, seconds: float = 5.0) -> Heat:
        for _ in range(times):
            self._now += seconds
            self.heat.look()
        return self.heat

    def _write(self, name: str, value: object) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    return Board(tmp_path, monkeypatch)


def test_a_cool_board_says_nothing(board: Board) -> None:
    found = board.look(3)
    assert (found.clock_share, found.celsius, found.slowed_down) == (1.0, 61.5, False)
    assert found.now == "" and found.line == []


def test_a_board_that_gets_hot_and_slow_says_so(board: Board) -> None:
    board.look(2)
    board.is_at([1_500_000] * 4, [50.0, 83.2])
    found = board.look(2)
    assert found.now == ", slowed down: clock at 62% of its highest, 83 degrees Celsius"
    board.is_at([HIGHEST] * 4, [50.0, 60.0])
    found = board.look(2)
    assert found.now == "" and found.slowed_down is True
    (line,) = found.line
    assert line.startswith("slowed down    clock at 62% of its highest, 83 degrees Celsius; cool the machine")


def test_a_board_that_was_slow_from_the_start_says_so(board: Board) -> None:
    board.is_at([1_200_000] * 4, [85.0])
    assert board.look(2).slowed_down is True


def test_a_clock_that_was_only_just_rising_is_not_slow(board: Board) -> None:
    board.is_at([600_000] * 4, [40.0])
    board.look()
    board.is_at([HIGHEST] * 4, [40.0])
    assert board.look().slowed_down is False


def test_cores_that_idle_do_not_count(board: Board) -> None:
    board.is_at([600_000, 600_000, 600_000, HIGHEST], [40.0])
    assert board.look(2).slowed_down is False


def test_it_is_read_every_five_seconds(board: Board) -> None:
    board.look()
    board.is_at([HIGHEST] * 4, [90.0])
    assert board.look(4, seconds=1.0).celsius == 61.5
    assert board.look().celsius == 90.0


def test_a_machine_that_tells_nothing_is_unknown(tmp_path: Path) -> None:
    found = Heat(f"{tmp_path}/")
    found.look()
    assert (found.clock_share, found.celsius, found.slowed_down, found.now, found.line) == (None, None, None, "", [])


def test_huge_pages_are_off_where_a_promise_must_hold() -> None:
    asked = (
        "import ctypes; from edge_runtime.device import _native; _native.settle_allocator(); "
        f"print(ctypes.CDLL(None).prctl({PR_GET_THP_DISABLE}, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_the_supervisor_switches_huge_pages_off_for_what_it_starts() -> None:
    supervisor = Path(_native.__file__).with_name("profl-supervise")
    asked = f"import ctypes; print(ctypes.CDLL(None).prctl({PR_GET_THP_DISABLE}, 0, 0, 0, 0))"
    done = subprocess.run(
        [str(supervisor), "--", sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
    assert ctypes.CDLL(None).prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 0  # of this process it is as it was


def test_what_is_in_swap_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = swapped_bytes()
    assert own is None or own >= 0
    real = open
    for text, expected in (("VmRSS:\t 10 kB\nVmSwap:\t 2048 kB\n", 2 << 20), ("VmRSS:\t 10 kB\n", None)):
        (tmp_path / "status").write_text(text)
        monkeypatch.setattr("builtins.open", lambda path, mode: real(tmp_path / "status", mode))
        found = swapped_bytes()
        monkeypatch.undo()
        assert found == expected


def test_the_table_says_what_of_the_training_lies_in_swap() -> None:
    report: dict[str, object] = {
        **dict.fromkeys(("interrupted", "stopped_early", "loss_last", "loss_smoothed", "step_seconds_median"), None),
        **{"block": 1, "program": "grow-block1", "steps": 3, "predicted_peak_bytes": 40 << 20},
        **{"measured_peak_bytes": 30 << 20, "limit_kind": "none", "cache_bytes": None, "initial_blocks": []},
        "output": "u.safetensors",
    }
    assert "swapped" not in step_table({**report, "swapped_bytes": 0})
    assert "swapped out    9.0 MB, which the peak does not count" in step_table({**report, "swapped_bytes": 9 << 20})
