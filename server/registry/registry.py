"""What every registry of device profiles can do, wherever it keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec

from device_profiles.contract import Runtime
from device_profiles.errors import FormatError
from device_profiles.profile import DeviceProfile


class Key(NamedTuple):
    """What a registry has one profile of."""

    device: str
    bundle_sha256: str
    runtime: Runtime


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile's line in a list. `digest` is the SHA-256 of its content without the device's name."""

    device: str
    bundle_sha256: str
    runtime: Runtime
    digest: str
    model: str
    budget_bytes: int | None

    @property
    def key(self) -> Key:
        """What it is kept under."""
        return Key(self.device, self.bundle_sha256, self.runtime)


class Registry(Protocol):
    """Profiles by device, bundle and runtime. Several processes may read and write one at the same time.

    What cannot be read is a FormatError among what is iterated: it names the file or row, and the others stay readable.
    """

    @property
    def where(self) -> str:
        """What errors call it: its path or URL, without a password."""

    def put(self, profiles: Iterable[DeviceProfile]) -> None:
        """Add profiles, all or none in a database; one of the same key is replaced.

        Raises FormatError where one of them contradicts itself or names no device.
        """

    def entries(self, *, device: str | None = None, bundle_sha256: str | None = None) -> Iterator[Entry | FormatError]:
        """What there is, of all or of one device and bundle, in the order of names."""

    def profiles(
        self, *, device: str | None = None, bundle_sha256: str | None = None
    ) -> Iterator[DeviceProfile | FormatError]:
        """The profiles themselves, in the order of `entries`."""

    def remove(self, keys: Iterable[Key]) -> int:
        """Forget profiles; returns how many of them there were."""
