"""Where files go: the cache of frozen blocks, and data that are unpacked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from device_profiles.errors import UsageError
from device_profiles.places import in_memory, temporary_folder
from device_profiles.sizes import MEGABYTE
from edge_runtime.device.doctor.row import Row
from edge_runtime.device.prepare.cached_prefix import default_folder

_LITTLE_BYTES = 200 * MEGABYTE


def storage_rows() -> Iterator[Row]:
    """Rows of the folders of this user and this environment."""
    yield _cache()
    yield folder_row("temporary files", Path(temporary_folder()), "set TMPDIR to another folder")


def folder_row(name: str, folder: Path, remedy: str) -> Row:
    """What is free in `folder`, which need not be there yet; `remedy` says how to take another."""
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), Path("/"))
    if not os.access(there, os.W_OK | os.X_OK):
        return Row(name, f"{folder} cannot be written", "note", remedy)
    free = shutil.disk_usage(there).free
    found = f"{free // MEGABYTE} MB free in {folder}"
    if in_memory(there):
        return Row(name, f"{found}, which lies in memory", "note", remedy)
    return Row(name, found, "note", remedy) if free < _LITTLE_BYTES else Row(name, found)


def _cache() -> Row:
    try:
        folder = default_folder()
    except UsageError as error:
        return Row("cache", str(error.message), "note", "set HOME")
    return folder_row("cache", folder, "train --cache-prefix takes another one with --cache-dir")
