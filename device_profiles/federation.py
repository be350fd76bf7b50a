"""What the server and the devices of a federation say to each other.

Every message is one Flower message with two records: `ORDER`, a ConfigRecord with one JSON document of this module
below `JSON` and, from the server, its signature below `SIGNATURE`; and `FILES`, an ArrayRecord of whole files, each an
array of bytes (`FILE_TYPE`, not `.npy`) under the name that the document gives it. The document holds the size and the
SHA-256 of every file, so that its signature covers them all, and whoever has a file already need not fetch it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from device_profiles.contract import Augmentation
from device_profiles.profile import DeviceProfile
from device_profiles.task import Result
from device_profiles.trades import Trade

QUERY_DEVICE = "query.device"
"""Who is there: a `DeviceQuestion`, answered by a `DeviceAnswer` at once."""
QUERY_PROFILE = "query.profile"
"""Measure a few programs: a `ProfileOrder` with its bundle, answered by a `ProfileAnswer`."""
TRAIN_TASK = "train.task"
"""Train: a `TrainOrder` with programs and weights, answered by a `TrainAnswer` with the update."""

ORDER = "profl"
FILES = "files"
JSON = "json"
SIGNATURE = "signature"
"""Of the bytes below `JSON`, by the key of the federation's server: ECDSA with SHA-256, DER."""
FILE_TYPE = "profl.file"
"""`stype` of an array whose data are the bytes of a file as they are; its `dtype` is uint8, its shape (bytes,)."""
BUNDLE_FOLDER = "bundle/"
"""`bundle/programs/grow-units0-3.pte` is a file of the order's bundle."""
WEIGHTS_FOLDER = "weights/"
"""`weights/unit3` is a safetensors file with the tensors of one unit, laid over the bundle's."""
UPDATE_FILE = "update.safetensors"

Count = Annotated[int, msgspec.Meta(ge=0)]


class SentFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that travels with a document, or that its receiver has already."""

    bytes: Count
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, path: Path) -> SentFile:
        """Of the file at `path`, which is read in pieces."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
            return cls(bytes=file.tell(), sha256=digest.hexdigest())


class DeviceQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`release`: of the server's profl-edge, so that a device can say that it has another one."""

    release: str


class DeviceAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device says of itself.

    Attributes:
        name: what its owner calls it.
        budget_bytes: what training may use now, without the client's own process.
        examples: of its data set.
        profile: of any bundle, None before the first.
        busy: why it would take no task now, None where it would.
    """

    name: str
    release: str
    budget_bytes: Count
    examples: Count
    profile: DeviceProfile | None = None
    busy: str | None = None


class ProfileOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measure every program of the bundle among `files`, `steps` steps each, with `threads` threads."""

    run: str
    files: dict[str, SentFile]
    steps: Annotated[int, msgspec.Meta(ge=1)] = 2
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1


class ProfileAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`status`: why there is no profile, `ok` where there is one."""

    status: str
    profile: DeviceProfile | None = None


class TrainOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task (`device_profiles.task`) for one device.

    Attributes:
        run: the run's own name; `attempt` counts over all its rounds, and an order older than one that was taken is
            not taken any more.
        work: as `parse_work` reads it.
        variant: of the program of this work that is run.
        files: of the bundle (`BUNDLE_FOLDER`) and of the weights (`WEIGHTS_FOLDER`).
        weights: names among `files`, laid over the bundle's initial weights in this order.
        promise_bytes: what the server planned with; the training is held below it by the device's own limit.
        prefix: of the task: the outputs of frozen blocks are kept as `cache_prefix` while it stays the same.
    """

    run: str
    client: str
    attempt: Count
    work: str
    variant: Trade = "default"
    files: dict[str, SentFile]
    weights: tuple[str, ...]
    base_version: str
    learning_rate: float
    seed: int
    promise_bytes: Count
    steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    epochs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    proximal: float = 0.0
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    timeout_seconds: float = 600.0
    max_seconds: float = 0.0
    augment: Augmentation | None = None
    cache_prefix: Literal["float32", "float16", "int8"] | None = None
    prefix: str | None = None


class TrainAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of the order; without an `update` the result's status says why.

    `transport_peak_bytes` is the largest that the client's own process was, beside the training.
    """

    run: str
    attempt: Count
    result: Result
    update: SentFile | None = None
    transport_peak_bytes: int | None = None
