"""Measured profiles that ship with the package: what really was measured, on what could really be measured on."""

from __future__ import annotations

from pathlib import Path

from device_profiles.errors import UsageError
from device_profiles.files import read_json
from device_profiles.profile import DeviceProfile

PREFIX = "shipped:"
_FOLDER = Path(__file__).parent / "data"


def shipped_names() -> list[str]:
    """Names of the profiles, as `shipped:NAME` takes them."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def shipped_profile(name: str) -> DeviceProfile:
    """Read and check one of them; raises UsageError with the names there are."""
    if name not in shipped_names():
        raise UsageError(f"{PREFIX}{name}: unknown profile (known: {', '.join(shipped_names()) or 'none'})")
    return read_json(_FOLDER / f"{name}.json", DeviceProfile)
