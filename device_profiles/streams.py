"""The three standard streams of a command, however the caller left them.

The training process imports this module as well, so that it imports next to nothing itself.
"""

from __future__ import annotations

import errno
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

_OUTPUT_NAME = "standard output"
_STANDARD = {0: os.O_RDONLY, 1: os.O_WRONLY, 2: os.O_WRONLY}


def open_closed_streams() -> None:
    """Open closed standard streams on the null device: the next file would else get their number, and be printed into.

    Call it before any other file is opened. Children inherit them.
    """
    for number, flags in _STANDARD.items():
        try:
            os.fstat(number)
        except OSError:
            file = _nothing(flags)
            if file == number:
                os.set_inheritable(file, True)
            else:
                os.dup2(file, number)
                os.close(file)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 -- for the whole process


def _nothing(flags: int) -> int:
    """The null device, or where there is none a pipe that nobody reads or writes."""
    try:
        return os.open(os.devnull, flags)
    except OSError:
        read, write = os.pipe()
        kept, other = (read, write) if flags == os.O_RDONLY else (write, read)
        os.close(other)
        return kept


def flushed(status: int, complain: Callable[[str], object]) -> int:
    """The exit status of a command that ends with `status`, once what it printed is out.

    A reader that has left has seen what it wanted: nothing is said. Where the output cannot be taken for another
    reason, one line says so, and the status is 1 unless it was worse.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            _discard(stream.fileno())
            if error.errno != errno.EPIPE and stream is sys.stdout:
                complain(f"{_OUTPUT_NAME}: {error.strerror or error}")
                status = status or 1
        except ValueError:  # closed
            pass
    return status


def _discard(number: int) -> None:
    """What is still buffered goes nowhere: the interpreter would complain of it once more at its end."""
    file = _nothing(os.O_WRONLY)
    os.dup2(file, number)
    os.close(file)


def run(main: Callable[[], int | None], complain: Callable[[str], object]) -> int:
    """Run a command line as a process of its own; returns its exit status. `complain` prints one line of an error."""
    open_closed_streams()
    sys.stdout = _named_output()
    try:
        status = _status(main)
    except OSError:
        status = 1  # its complaint could not be printed
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        complain(f"{error}{_REMEDIES[errno.EAGAIN]}")
        status = 1
    return flushed(status, complain)


class _Named(io.FileIO):
    """The standard output, whose errors name it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, _OUTPUT_NAME) from None


def _named_output() -> TextIO:
    stream = sys.stdout
    buffer = io.BufferedWriter(_Named(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=stream.isatty())


def _status(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except SystemExit as stop:
        if stop.code is not None and not isinstance(stop.code, int):
            raise
        return stop.code or 0


def ended_by(error: OSError, complain: Callable[[str], object]) -> int:
    """Say what the operating system refused; returns the exit status."""
    if error.filename == _OUTPUT_NAME:
        _discard(1)  # said once
    if error.errno != errno.EPIPE:
        complain(system_error(error))
    return 1


def system_error(error: OSError) -> str:
    """One line for an error of the operating system: its place, what is wrong, and a remedy where one is known."""
    reason = error.strerror or str(error)
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) and error.filename else ""
    if reason.startswith(_NO_TEMPORARY):
        return _why_no_temporary_folder()
    return f"{place}{reason}{_REMEDIES.get(error.errno or 0, '')}"


def _why_no_temporary_folder() -> str:
    """Python tries to write to several and forgets what went wrong: it can be that no file can be opened at all."""
    try:
        os.close(os.open(os.curdir, os.O_RDONLY))
    except OSError as error:
        if error.errno in _REMEDIES:
            return f"{error.strerror}{_REMEDIES[error.errno]}"
    return "no temporary folder can be written; set TMPDIR to one with room"


_NO_TEMPORARY = "No usable temporary directory"
_REMEDIES = {
    errno.EAGAIN: "; no further process or thread can be started: allow more (ulimit -u, pids.max)",
    errno.EMFILE: "; allow more open files (ulimit -n)",
    errno.ENFILE: "; the whole system has no more open files",
}
