"""Which folders lie on a disk, and which in memory (tmpfs, ramfs), where files are charged to those who write them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
_LARGE_TEMPORARY = "/var/tmp"
_LAYERS = 8
"""Overlays on overlays that are looked through."""


def in_memory(path: str | os.PathLike[str]) -> bool:
    """Whether a file at `path`, which need not be there, lies in memory. False where the system does not tell."""
    place = Path(os.path.abspath(path))
    for folder in (place, *place.parents):
        try:
            return _is_memory(os.stat(folder).st_dev, _LAYERS)
        except OSError:
            continue
    return False


def is_file_in_memory(file: int) -> bool:
    """The same of an open file."""
    return _is_memory(os.fstat(file).st_dev, _LAYERS)


def temporary_folder() -> str:
    """Where large temporary files go: to TMPDIR where it is set, otherwise to a folder on a disk if there is one."""
    usual = tempfile.gettempdir()
    asked = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return usual if asked else disk_folder()


def disk_folder(*preferred: str) -> str:
    """The first of `preferred`, or else of the system's temporary folders, that can be written and lies on a disk.

    Where all of them lie in memory, the first one that can be written.
    """
    known = [*preferred, tempfile.gettempdir(), _LARGE_TEMPORARY]
    usable = [folder for folder in known if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)]
    return next((folder for folder in usable if not in_memory(folder)), usable[0] if usable else known[0])


def _is_memory(device: int, layers: int) -> bool:
    for number, kind, options in _mounts():
        if number != (os.major(device), os.minor(device)):
            continue
        if kind in _IN_MEMORY:
            return True
        upper = next((text.removeprefix("upperdir=") for text in options if text.startswith("upperdir=")), None)
        if kind == "overlay" and upper is not None and layers and os.path.isdir(upper):
            return _is_memory(os.stat(upper).st_dev, layers - 1)
    return False


def _mounts() -> Iterator[tuple[tuple[int, int], str, list[str]]]:
    """Device, type and options of every mounted file system."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        mount, _, system = line.partition(" - ")
        major, _, minor = mount.split(" ")[2].partition(":")
        kind, _, rest = system.partition(" ")
        yield (int(major), int(minor)), kind, rest.rpartition(" ")[2].split(",")
