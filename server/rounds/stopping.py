"""What Ctrl-C and SIGTERM do to a run: it ends as after an error, with its children, and says how it goes on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

STOPPED_STATUS = 130
"""Exit status of a run that was stopped by a signal."""
_GRACE_SECONDS = 10.0


class Stopped(KeyboardInterrupt):
    """Raised where the run is when the signal `name` arrives."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise Stopped; a signal that this process was told to ignore stays ignored.

    A signal is handled wherever the process is, also in the middle of an extension that turns every exception into one
    of its own (a reader of files, say). What comes out after a signal is Stopped for this reason, whatever it was.
    """
    came: list[str] = []

    def stop(number: int, frame: object) -> None:
        came.append(signal.Signals(number).name)
        raise Stopped(came[-1])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    except Exception as error:
        if came:
            raise Stopped(came[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_child(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says; when this process is stopped, it ends too, with time to clean up."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            out, err = child.communicate()
        except BaseException:
            child.terminate()
            try:
                child.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
    return subprocess.CompletedProcess(command, child.returncode, out, err)
