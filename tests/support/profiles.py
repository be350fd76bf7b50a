"""Device profiles for tests: the golden one, under other names and limits."""

from __future__ import annotations

from pathlib import Path

import msgspec

from device_profiles.files import read_json
from device_profiles.profile import DeviceProfile

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "profile.json"


def profile_of(name: str, *, limit_bytes: int | None = None, bundle_sha256: str | None = None) -> DeviceProfile:
    """The golden profile as that of the device `name`."""
    golden = read_json(GOLDEN, DeviceProfile)
    device = msgspec.structs.replace(golden.device, name=name, limit_bytes=limit_bytes or golden.device.limit_bytes)
    bundle = bundle_sha256 or golden.bundle_sha256
    return msgspec.structs.replace(golden, device=device, bundle_sha256=bundle)
