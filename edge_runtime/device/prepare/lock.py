"""One process per output file."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_profiles.errors import UsageError
from device_profiles.outputs import beside, followed, in_place


@contextmanager
def exclusive(output: Path) -> Iterator[tuple[Path, int] | None]:
    """Hold `<output>.lock`, and yield its path and open file, which a process may inherit.

    A link is followed, so that nobody writes the same file by its other name; what is no file but a device has no lock.
    Raises UsageError where another process holds it or the folder cannot be written.

    The kernel releases the lock with the process, so a killed run leaves nothing that must be cleaned up.
    """
    if not output.is_dir() and in_place(str(output)):
        yield None
        return
    path = Path(beside(followed(str(output)), ".lock"))
    file = _acquire(path, output)
    try:
        yield path, file
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _acquire(path: Path, output: Path) -> int:
    while True:
        file = _open(path, output)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise UsageError(
                "another process is writing it", field="output", value=output, remedy="choose another output or wait"
            ) from None
        except OSError:
            return file  # a file system without locks: every file still appears whole or not at all
        # The holder before us may have removed the file between our open and our lock.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            return file
        os.close(file)


def _open(path: Path, output: Path) -> int:
    """The lock's file, which is empty; anything else of this name is somebody's and would be removed in the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _is_free(path):
            raise UsageError(
                f"{path} is not a lock file of this program",
                field="output",
                value=output,
                remedy="move it away",
            )
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", field="output", value=output) from None


def _is_free(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_size == 0
