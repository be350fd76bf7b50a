"""Profiles on their way into a registry and out of it: from files, and from one registry to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from device_profiles.errors import FormatError, UsageError
from device_profiles.profile import DeviceProfile
from server.registry.documents import read_profile
from server.registry.opening import is_database, open_registry


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
    """Whether profiles of several bundles may lie there: in a database, where a folder is of one bundle."""
    return "://" in where or is_database(Path(where))


def by_device(profiles: Iterable[DeviceProfile | FormatError], where: str) -> dict[str, DeviceProfile]:
    """What a plan starts from: profiles by their devices' names. Raises FormatError where one cannot be read (a plan
    without a device that is there would be wrong in silence), UsageError where two have the same name, or for none."""
    known: dict[str, DeviceProfile] = {}
    for profile in profiles:
        if isinstance(profile, FormatError):
            raise profile
        name = profile.device.name
        if name in known:
            raise UsageError(f"{where}: has a second profile of {name}; rename it with profl-profile --name")
        known[name] = profile
    return known


def profiles_of_bundle(where: str, bundle_sha256: str) -> dict[str, DeviceProfile]:
    """Of a registry, the profiles that the light runtime measured with this bundle; raises UsageError for none."""
    read = open_registry(where, create=False).profiles(bundle_sha256=bundle_sha256)
    known = by_device((p for p in read if isinstance(p, FormatError) or p.runtime == "native"), where)
    if not known:
        raise UsageError(
            f"{where}: holds no profile of this bundle; measure it with profl-profile, then import the profile"
        )
    return known
