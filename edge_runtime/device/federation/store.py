"""Files by their content: what one task brought is there for the next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from device_profiles.errors import DigestError
from device_profiles.federation import SentFile

_NEW = ".new"


class FileStore:
    """Files under the names of their SHA-256, no more than `limit_bytes` of them: those that were not used for longest
    go first.

    A file is there whole or not at all, whatever is killed when. Its digest is compared when it comes and every time
    that it is used.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, sent: SentFile) -> bool:
        """Whether a file of this name and size is there."""
        try:
            return self._path(sent).stat().st_size == sent.bytes
        except OSError:
            return False

    def add(self, sent: SentFile, fetch: Callable[[Path], None]) -> None:
        """Have `fetch` write the file to the path it is given. Raises DigestError where it wrote something else, and
        whatever `fetch` raises; what it has written by then is there at the next try."""
        new = self._path(sent).with_suffix(_NEW)
        fetch(new)
        if SentFile.of(new) != sent:
            new.unlink(missing_ok=True)
            raise DigestError(f"{sent.sha256}: what came is another file")
        new.replace(self._path(sent))

    def put(self, sent: SentFile, path: Path) -> None:
        """Have the file at `path`, which must be free, without a second copy on the disk where it can be shared. Raises
        DigestError where what is kept is damaged, and keeps it no longer."""
        kept = self._path(sent)
        if SentFile.of(kept) != sent:
            kept.unlink(missing_ok=True)
            raise DigestError(f"{kept}: is damaged; it is fetched again with the next task")
        os.utime(kept)
        try:
            os.link(kept, path)
        except OSError:  # a file system without links
            shutil.copyfile(kept, path)

    def trim(self, keep: Collection[str] = ()) -> None:
        """Remove what is beyond the limit, but no digest of `keep`; and every part of a file that nobody waits for."""
        found = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                if "." not in path.name:
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
                elif path.name.partition(".")[0] not in keep:
                    path.unlink()
        held = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if held <= self._limit:
                return
            if path.name not in keep:
                path.unlink(missing_ok=True)
                held -= size

    def drop_parts(self) -> None:
        """Remove what there is of files that did not come whole."""
        for path in self._folder.glob("*.*"):
            path.unlink(missing_ok=True)

    def _path(self, sent: SentFile) -> Path:
        return self._folder / sent.sha256


def free_bytes(folder: Path) -> int:
    """Of the file system below `folder`, for this user."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
