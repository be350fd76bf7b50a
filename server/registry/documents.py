"""A profile as the bytes that a registry keeps. Profiles come from strangers: sizes are bounded, contents checked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from device_profiles.errors import FormatError
from device_profiles.files import from_json
from device_profiles.profile import DeviceProfile
from server.registry.registry import Entry, Key

LARGEST_BYTES = 16 << 20
"""Of one document. A profile takes about 1 kB for each program, and ten thousand programs are read at most."""

_ENCODER = msgspec.json.Encoder(order="deterministic")


def read_profile(path: Path) -> DeviceProfile:
    """Read and check a profile's file; raises FormatError that names it."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    if len(raw) > LARGEST_BYTES:
        raise FormatError(f"{path}: is larger than {LARGEST_BYTES >> 20} MB, which no device profile is")
    profile = from_json(raw, DeviceProfile, str(path))
    if not profile.device.name:
        raise FormatError(f"{path}: device: name is empty")
    return profile


def to_document(profile: DeviceProfile) -> bytes:
    """What profiles of devices that are alike have in common: all but the name, and no timelines."""
    return _ENCODER.encode(named(profile.without_timelines(), ""))


def from_document(document: bytes, source: str) -> DeviceProfile:
    """The profile of a device without a name; raises FormatError, naming `source`, where the document is damaged."""
    return from_json(document, DeviceProfile, source)


def digest_of(document: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(document).hexdigest()


def key_of(profile: DeviceProfile) -> Key:
    """What a registry keeps it under."""
    return Key(profile.device.name, profile.bundle_sha256, profile.runtime)


def entry_of(profile: DeviceProfile, digest: str) -> Entry:
    """Its line in a list."""
    return Entry(
        **key_of(profile)._asdict(), digest=digest, model=profile.model, budget_bytes=profile.device.budget_bytes
    )


def check_new(profile: DeviceProfile) -> None:
    """Raise FormatError where a profile must not come into a registry."""
    source = f"profile of {profile.device.name}" if profile.device.name else "profile"
    profile.check(source)
    if not profile.device.name:
        raise FormatError(f"{source}: device: name is empty")


def named(profile: DeviceProfile, name: str) -> DeviceProfile:
    """The profile as that of the device `name`."""
    return msgspec.structs.replace(profile, device=msgspec.structs.replace(profile.device, name=name))
