"""Signals that stop a run, and what becomes of the processes that it started."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from server.rounds.stopping import Stopped, run_child, stop_signals
from server.running.run_fleet import saved_as
from tests.support.fake_run import FakeEngine, run

_SLEEPS = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_child_that_is_waited_for(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    started = tmp_path / "started"

    def kill() -> None:
        while not started.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=kill)
    with pytest.raises(Stopped) as stopped, stop_signals():
        # What a shell does to a command in the background must not decide over this test.
        signal.signal(number, signal.getsignal(signal.SIGTERM))
        thread.start()
        run_child([sys.executable, "-c", _SLEEPS, str(started)])
    thread.join()
    assert stopped.value.name == number.name
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if str(started) in " ".join(child.cmdline())]
    assert signal.getsignal(number) == before


def test_a_signal_that_an_extension_turns_into_an_error_of_its_own_still_stops() -> None:
    """safetensors answered with a ValueError once, in whose making PyTorch had met the signal."""
    with pytest.raises(Stopped) as stopped, stop_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            raise ValueError("could not determine the shape of an object") from None
    assert stopped.value.name == "SIGTERM"


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="a fault of its own"), stop_signals():
        raise ValueError("a fault of its own")


def test_what_a_child_says_comes_back_with_its_status() -> None:
    done = run_child([sys.executable, "-c", "import sys; print('said'); sys.exit('complaint')"])
    assert (done.returncode, done.stdout, done.stderr) == (1, "said\n", "complaint\n")


def test_a_signal_that_the_process_was_told_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_said_of_a_stopped_run_is_what_is_on_disk(tmp_path: Path) -> None:
    assert saved_as(tmp_path) == "before its first round"
    run(tmp_path, FakeEngine())
    assert saved_as(tmp_path) == "the run is saved after round 6"
