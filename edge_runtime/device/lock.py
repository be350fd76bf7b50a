"""One process per output file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_profiles.errors import UsageError


@contextmanager
def exclusive(output: Path) -> Iterator[tuple[Path, int]]:
    """Hold `<output>.lock`, and yield its path and open file, which a process may inherit.

    Raises UsageError where another process holds it or the folder cannot be written.

    The kernel releases the lock with the process, so a killed run leaves nothing that must be cleaned up.
    """
    path = output.with_name(output.name + ".lock")
    file = _acquire(path, output)
    try:
        yield path, file
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _acquire(path: Path, output: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"-o {output}: cannot be written: {error.strerror or error}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise UsageError(f"-o {output}: another process is writing it; choose another output or wait") from None
        # The holder before us may have removed the file between our open and our lock.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            return file
        os.close(file)
