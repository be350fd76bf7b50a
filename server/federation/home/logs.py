"""Files that the processes of a federation write what they say to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_LOG_BYTES = 4 << 20


def open_log(path: Path) -> BinaryIO:
    """Open a log to be added to; one that has grown large is kept beside it as `.1`."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def last_line(path: Path) -> str:
    """What was said last, for an error's line; "" where nothing was."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (16 << 10)))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
