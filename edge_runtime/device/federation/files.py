"""The files of an order: fetched where they are missing, and laid out as the folders that commands read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from device_profiles.errors import ExecutionError, FormatError
from device_profiles.federation import SentFile
from edge_runtime.device.federation.answers import Fetch
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.store import free_bytes

SPARE_BYTES = 16 << 20
"""Of the disk: what a device keeps free for itself."""
_MEGABYTE = 1 << 20


def fetch_missing(device: Device, files: Mapping[str, SentFile], fetch: Fetch, *, more_bytes: int = 0) -> int:
    """Fetch what the store lacks of `files`; returns the bytes that came.

    Raises ExecutionError where they are more than may be downloaded, or than the disk has room for beside `more_bytes`
    of work, before anything is fetched; DigestError where a file is another one than the order names.
    """
    missing = {sent.sha256: (name, sent) for name, sent in files.items() if not device.store.has(sent)}
    count = sum(sent.bytes for _, sent in missing.values())
    check_room(device, count, more_bytes)
    try:
        for name, sent in missing.values():
            device.journal.progress(f"fetching {name}, {sent.bytes / _MEGABYTE:.1f} MB")
            device.store.add(sent, lambda path, name=name, sent=sent: fetch(name, path, sent))  # type: ignore[misc]
        device.store.trim(keep={sent.sha256 for sent in files.values()})
    except OSError as error:
        device.store.drop_parts()
        raise ExecutionError(f"the files of the task cannot be kept: {error.strerror or error}") from None
    return count


def check_room(device: Device, download: int, more_bytes: int) -> None:
    """Raise ExecutionError where a download is not allowed, or has no room on the disk."""
    most = device.settings.max_download_bytes
    if download > most:
        raise ExecutionError(f"a download of {_megabytes(download)} is more than the {_megabytes(most)} allowed")
    free = free_bytes(device.state.files)
    if download + more_bytes + SPARE_BYTES > free:
        raise ExecutionError(
            f"a download of {_megabytes(download)} and {_megabytes(more_bytes)} of work do not fit the "
            f"{_megabytes(free)} free on the disk"
        )


def lay_out(device: Device, files: Mapping[str, SentFile]) -> Path:
    """Lay the files out below the task's folder, under their names; returns it. Raises ExecutionError, DigestError."""
    folder = device.state.task
    for name in ("bundle", "weights"):
        shutil.rmtree(folder / name, ignore_errors=True)
    try:
        for name, sent in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            device.store.put(sent, path)
    except FileExistsError as error:
        raise FormatError(f"{error.filename}: two files of the order have one name on this disk") from None
    except OSError as error:
        raise ExecutionError(f"the files of the task cannot be laid out: {error.strerror or error}") from None
    return folder


def _megabytes(count: int) -> str:
    return f"{count / _MEGABYTE:.1f} MB"
