"""Profiles in a folder, a JSON file each: for fleets that people look after by hand.

A file is replaced as a whole and has a name of its own for every key, so that processes that write at the same time do
not disturb each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from device_profiles.errors import FormatError
from device_profiles.files import write_json
from device_profiles.profile import DeviceProfile
from server.registry.documents import check_new, digest_of, entry_of, key_of, read_profile, to_document
from server.registry.registry import Entry, Key

_NAME_CHARACTERS = 60
"""Of a device's name in that of its file; what tells keys apart follows it."""


class FolderRegistry:
    """A folder of `*.json`; files that were put there by hand keep their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder)

    def put(self, profiles: Iterable[DeviceProfile]) -> None:
        """Add or replace profiles, a file at a time."""
        new = list(profiles)
        for profile in new:
            check_new(profile)
        known = self._paths()
        for profile in new:
            key = key_of(profile)
            path = known.setdefault(key, self._folder / _file_name(key))
            write_json(path, profile.without_timelines())

    def entries(self, *, device: str | None = None, bundle_sha256: str | None = None) -> Iterator[Entry | FormatError]:
        """A line for every file; damaged ones come first."""
        for profile in self.profiles(device=device, bundle_sha256=bundle_sha256):
            if isinstance(profile, FormatError):
                yield profile
            else:
                yield entry_of(profile, digest_of(to_document(profile)))

    def profiles(
        self, *, device: str | None = None, bundle_sha256: str | None = None
    ) -> Iterator[DeviceProfile | FormatError]:
        """The profiles of all files; damaged ones come first."""
        found: dict[Key, DeviceProfile] = {}
        for path, profile in self._read():
            if isinstance(profile, FormatError):
                yield profile
            elif device in (None, profile.device.name) and bundle_sha256 in (None, profile.bundle_sha256):
                if key_of(profile) in found:
                    yield FormatError(f"{path}: is a second profile of {profile.device.name}; remove one of them")
                found.setdefault(key_of(profile), profile)
        for key in sorted(found):
            yield found[key]

    def remove(self, keys: Iterable[Key]) -> int:
        """Remove their files."""
        known = self._paths()
        paths = [known[key] for key in set(keys) if key in known]
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)

    def _read(self) -> Iterator[tuple[Path, DeviceProfile | FormatError]]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield path, read_profile(path)
            except FormatError as error:
                yield path, error

    def _paths(self) -> dict[Key, Path]:
        paths: dict[Key, Path] = {}
        for path, profile in self._read():
            if not isinstance(profile, FormatError):
                paths.setdefault(key_of(profile), path)
        return paths


def _file_name(key: Key) -> str:
    """Names of devices are strangers' texts: the file has what any file system takes of it."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", key.device)[:_NAME_CHARACTERS].lstrip(".-") or "device"
    return f"{readable}-{digest_of(repr(tuple(key)).encode())[:12]}.json"
