"""What the server and the devices of a federation say to each other.

Every message is one Flower message with two records: `ORDER`, a ConfigRecord with one JSON document of this module
below `JSON` and, from the server, its signature below `SIGNATURE`; and `FILES`, an ArrayRecord of whole files, each an
array of bytes (`FILE_TYPE`, not `.npy`) under the name that the document gives it. The document holds the size and the
SHA-256 of every file, so that its signature covers them all, and whoever has a file already need not fetch it.

Server and devices need not be of one release. A field at its default is not sent. What a reader does not know it
refuses, in one line, unless the document itself says that the field may be ignored (`Document.ignorable`); the one who
signed the document has said so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from device_profiles.contract import Augmentation
from device_profiles.errors import FormatError
from device_profiles.files import from_json
from device_profiles.profile import DeviceProfile
from device_profiles.task import Result
from device_profiles.trades import Trade
from device_profiles.wrong_values import explained

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
_UPDATE = "install the same release of profl-edge on the server and on the device"
_NAME_CHARACTERS = 80

VERSION = 1
"""Of all documents: higher where one means something else than before, and not where a field is new."""
Count = Annotated[int, msgspec.Meta(ge=0)]


class SentFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that travels with a document, or that its receiver has already."""

    bytes: Count
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", description="64 hexadecimal digits")]

    @classmethod
    def of(cls, path: Path) -> SentFile:
        """Of the file at `path`, which is read in pieces."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
            return cls(bytes=file.tell(), sha256=digest.hexdigest())


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all documents have.

    Attributes:
        ignorable: names of fields, of which a reader that does not know them takes no notice.
    """

    version: Annotated[int, msgspec.Meta(ge=1)] = VERSION
    ignorable: tuple[str, ...] = ()


T = TypeVar("T", bound=Document)


class _Head(msgspec.Struct):
    version: int = VERSION
    ignorable: tuple[str, ...] = ()


def read_document(raw: bytes, kind: type[T], source: str) -> T:
    """A document of any release, which errors call `source`.

    Raises FormatError where it is none, or has a version or a field that this release does not know and that may not be
    ignored.
    """
    try:
        head = msgspec.json.decode(raw, type=_Head, strict=True)
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{source}: {explained(error, kind)}") from None
    if head.version > VERSION:
        raise FormatError(f"{source}: is of version {head.version}, this release knows up to {VERSION}", remedy=_UPDATE)
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    unknown = [name for name in fields if name not in known]
    refused = next((name for name in unknown if name not in head.ignorable), None)
    if refused is not None:
        name = ascii(refused[:_NAME_CHARACTERS])[1:-1]
        raise FormatError(f"{source}: {name}: is not known here", remedy=_UPDATE)
    if unknown:
        raw = msgspec.json.encode({name: value for name, value in fields.items() if name in known})
    return from_json(raw, kind, source)


class DeviceQuestion(Document, frozen=True, kw_only=True):
    """`release`: of the server's profl-edge, so that a device can say that it has another one."""

    release: str


class DeviceAnswer(Document, frozen=True, kw_only=True):
    """What a device says of itself.

    Attributes:
        name: what its owner calls it.
        budget_bytes: what training may use now, without the client's own process.
        examples: of its data set.
        profile: of any bundle, None before the first.
        busy: why it would take no task now, None where it would.
        took: the messages with orders that it has taken last, by Flower's names of them; None where it does not count
            them. An order that is not among them was lost on the way, as by a kill, and is to be sent again.
    """

    name: str
    release: str
    budget_bytes: Count
    examples: Count
    profile: DeviceProfile | None = None
    busy: str | None = None
    took: tuple[str, ...] | None = None


class ProfileOrder(Document, frozen=True, kw_only=True):
    """Measure every program of the bundle among `files`, `steps` steps each, with `threads` threads."""

    run: str
    files: dict[str, SentFile]
    steps: Annotated[int, msgspec.Meta(ge=1)] = 2
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1


class ProfileAnswer(Document, frozen=True, kw_only=True):
    """`status`: why there is no profile, `ok` where there is one."""

    status: str
    profile: DeviceProfile | None = None


class TrainOrder(Document, frozen=True, kw_only=True):
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


class TrainAnswer(Document, frozen=True, kw_only=True):
    """What became of the order; without an `update` the result's status says why.

    `transport_peak_bytes` is the largest that the client's own process was, beside the training.
    """

    run: str
    attempt: Count
    result: Result
    update: SentFile | None = None
    transport_peak_bytes: int | None = None
