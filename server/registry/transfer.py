"""Profiles on their way into a registry and out of it: from files, and from one registry to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from device_profiles.errors import FormatError, UsageError
from device_profiles.profile import DeviceProfile
from server.registry.documents import key_of, read_profile
from server.registry.opening import is_database, open_registry
from server.registry.registry import Key


def files_of(sources: Iterable[Path]) -> list[Path]:
    """The files that sources are, and those of `*.json` in sources that are folders; raises UsageError for none."""
    files: list[Path] = []
    for source in sources:
        found = sorted(source.glob("*.json")) if source.is_dir() else [source]
        if not found:
            raise UsageError(f"{source}: contains no *.json; create profiles with profl-profile")
        files += found
    return files


def read_files(files: Iterable[Path]) -> Iterator[DeviceProfile | FormatError]:
    """Profiles of files, and what is wrong with those that are none."""
    for file in files:
        try:
            yield read_profile(file)
        except FormatError as error:
            yield error


def is_registry(where: str) -> bool:
    """Whether it is a database, rather than files."""
    return "://" in where or is_database(Path(where))


def read_profiles(where: str) -> Iterator[DeviceProfile]:
    """What a plan starts from: all profiles of a file, a folder or a registry, one after the other. Raises FormatError
    where one of them cannot be read: a plan without a device that is there would be wrong in silence."""
    if is_registry(where):
        read: Iterable[DeviceProfile | FormatError] = open_registry(where, create=False).profiles()
    elif Path(where).exists():
        read = read_files(files_of([Path(where)]))
    else:
        raise UsageError(f"{where}: does not exist; create profiles with profl-profile")
    for profile in read:
        if isinstance(profile, FormatError):
            raise profile
        yield profile


def by_device(profiles: Iterable[DeviceProfile], bundle_sha256: str, where: str) -> Iterator[tuple[str, DeviceProfile]]:
    """The best profile of each device for a bundle, by name: what the light runtime measured with it, else with another
    one, the latest of those. A better one may follow, and is meant instead.

    Raises UsageError where there are two of one bundle, or none at all.
    """
    best: dict[str, tuple[bool, datetime]] = {}
    seen: set[Key] = set()
    for profile in profiles:
        if profile.runtime != "native":
            continue
        key = key_of(profile)
        if key in seen:
            raise UsageError(f"{where}: has a second profile of {key.device}; rename it with profl-profile --name")
        seen.add(key)
        rank = _rank(profile, bundle_sha256)
        if key.device not in best or best[key.device] < rank:
            best[key.device] = rank
            yield key.device, profile
    if not best:
        raise UsageError(f"{where}: holds no profile of the light runtime; create profiles with profl-profile")


def _rank(profile: DeviceProfile, bundle_sha256: str) -> tuple[bool, datetime]:
    """Of two profiles of a device, the larger one is of more use for the bundle."""
    measured = datetime.fromisoformat(profile.measurement.measured_at)
    return profile.bundle_sha256 == bundle_sha256, measured if measured.tzinfo else measured.replace(tzinfo=UTC)
