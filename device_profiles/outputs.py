"""Where an output goes: what may lie at its place, and how it appears there whole or not at all.

The training process imports this module as well, so that it imports next to nothing itself.

A regular file, or a name that is free, gets a new file by renaming. A link is followed: what it leads to is replaced. A
character device, and the standard output and error of this process, are written as they are. Everything else would be
destroyed, or would wait for somebody else, and is refused.
"""

from __future__ import annotations

import errno
import os
import stat

from device_profiles.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_LINKS = 40
_NAME_BYTES = 255
_RANDOM_BYTES = 4
_TEMPORARY_BYTES = 2 + 2 * _RANDOM_BYTES
_PIECE_BYTES = 1 << 20
_NO_RENAMING = (
    *(errno.EBUSY, errno.EXDEV, errno.EEXIST, errno.EPERM, errno.EACCES),
    *(errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL),
)
"""What a file system answers that cannot put one file over another, or not over a file mounted by itself."""
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_REFUSED = (
    (stat.S_ISDIR, "is a folder; give the name of a file"),
    (stat.S_ISFIFO, "is a named pipe; give the name of a file, or /dev/stdout"),
    (stat.S_ISSOCK, "is a socket; give the name of a file"),
    (stat.S_ISBLK, "is a block device; give the name of a file"),
)


def followed(path: str) -> str:
    """What `path` leads to: where it is a link, the file at its end, which need not be there. Raises OSError."""
    for _ in range(_LINKS):
        try:
            target = os.readlink(path)
        except OSError:
            return path
        folder = os.path.realpath(os.path.dirname(path) or ".")
        path = os.path.join(folder, target)
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if path.startswith("/proc/"):
            return path  # an open file: what its link says is a description, not always a name
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def in_place(path: str, *, option: str = "-o") -> bool:
    """Whether `path` is written as it is, and no file made or replaced. Raises UsageError where it can be neither."""
    try:
        target = followed(path)
        if _stream(target) is not None:
            return True
        if target.startswith("/proc/"):
            raise UsageError(f"{option} {path}: is an open file; give the name of a file, or /dev/stdout")
        mode = os.stat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{option} {path}: cannot be written: {reason}; choose another place") from None
    for is_kind, what in _REFUSED:
        if is_kind(mode):
            raise UsageError(f"{option} {path}: {what}")
    return stat.S_ISCHR(mode)


def _stream(target: str) -> int | None:
    """The standard output or error of this process, where `target` is one of them."""
    folder, number = os.path.split(target)
    return int(number) if number in ("1", "2") and folder == os.path.realpath("/proc/self/fd") else None


def open_in_place(path: str) -> int:
    """Open for writing what `in_place` says is written as it is."""
    stream = _stream(followed(path))
    # The same open file, with its position: what is printed afterwards follows what is written here.
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC) if stream is None else os.dup(stream)


def beside(path: str, ending: str) -> str:
    """`path` with `ending`; a name that has no room for it is cut, with a number that tells it from others."""
    folder, name = os.path.split(path)
    cut = _cut(folder, name, len(ending))
    if cut != name:
        number = int.from_bytes(os.fsencode(name), "big") % 0xFFFFFFFB
        cut = f"{_cut(folder, name, len(ending) + 9)}~{number:08x}"
    return os.path.join(folder, cut + ending)


def temporary_start(path: str) -> str:
    """What the names of temporary files of `path` begin with; eight characters follow."""
    folder, name = os.path.split(path)
    return f".{_cut(folder, name, _TEMPORARY_BYTES)}."


def temporary_name(path: str) -> str:
    """A free name beside `path`, no longer than names may be."""
    return os.path.join(os.path.dirname(path), temporary_start(path) + os.urandom(_RANDOM_BYTES).hex())


def new_file(path: str) -> int:
    """Make and open a file, with the mode that this user's new files have."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def sync(file: int) -> None:
    """Have the bytes of an open file on the disk; nothing happens where the file system knows no such request."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def write_all(file: int, data: bytes | memoryview[Any]) -> None:
    """Write all bytes to an open file."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(file, rest) :]


def move_over(temporary: str, path: str) -> None:
    """Give a finished file its name; what lies there goes. Raises OSError that says where the finished file is kept.

    Where the file system cannot rename over a file, its bytes are copied into it.
    """
    try:
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno not in _NO_RENAMING:
                raise
            _copy(temporary, path)
            os.unlink(temporary)
    except OSError as error:
        reason = f"{error.strerror or error}; the finished file is kept as {temporary}"
        raise OSError(error.errno, reason, path) from None


def copy_in_place(source: str, path: str) -> None:
    """Write the bytes of the file `source` to what `in_place` says is written as it is."""
    file = open_in_place(path)
    try:
        _copy_to(source, file)
    finally:
        os.close(file)


class OutputFile:
    """A file that is there, whole, when the `with` ends, and not at all when its body raises."""

    def __init__(self, path: str, *, option: str = "-o") -> None:
        self._in_place = in_place(path, option=option)
        self._path = path if self._in_place else followed(path)
        self._temporary = "" if self._in_place else temporary_name(self._path)

    def __enter__(self) -> OutputFile:
        self._file = open_in_place(self._path) if self._in_place else new_file(self._temporary)
        return self

    def write(self, data: bytes | memoryview[Any]) -> None:
        """Append bytes."""
        write_all(self._file, data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = False
        try:
            try:
                if error is None and not self._in_place:
                    sync(self._file)
            finally:
                os.close(self._file)
            finished = error is None
        finally:
            if not finished and not self._in_place:
                os.unlink(self._temporary)
        if finished and not self._in_place:
            move_over(self._temporary, self._path)


def _cut(folder: str, name: str, room: int) -> str:
    """`name` with so many bytes less that `room` more fit."""
    try:
        longest = os.pathconf(folder or ".", "PC_NAME_MAX")
    except (OSError, ValueError):
        longest = _NAME_BYTES
    return os.fsdecode(os.fsencode(name)[: max(1, longest - room)])


def _copy(source: str, path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        _copy_to(source, file)
        sync(file)
    finally:
        os.close(file)


def _copy_to(source: str, file: int) -> None:
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.read(read, _PIECE_BYTES):
            write_all(file, piece)
    finally:
        os.close(read)
