"""Objects as flwr stores them: `TYPE CHILD,CHILD SIZE`, a zero byte, and a body of SIZE bytes.

An object is named by the SHA-256 of all that. A message is a tree of them: Message, RecordDict, its records, the Arrays
of an ArrayRecord, and their ArrayChunks.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple, TypeVar

import msgspec

from device_profiles.errors import FormatError
from device_profiles.wrong_values import explained

Body = TypeVar("Body")
MESSAGE, RECORDS, CONFIG, ARRAYS, ARRAY, CHUNK = (
    "Message",
    "RecordDict",
    "ConfigRecord",
    "ArrayRecord",
    "Array",
    "ArrayChunk",
)
CHUNK_BYTES = 5 << 20
"""What flwr cuts arrays into."""
MAX_CHUNK_HEAD_BYTES = 64
_ID = re.compile("[0-9a-f]{64}")


class Stored(NamedTuple):
    """An object in memory."""

    kind: str
    children: tuple[str, ...]
    body: bytes

    @property
    def content(self) -> bytes:
        """What is sent and hashed."""
        return head(self.kind, self.children, len(self.body)) + self.body

    @classmethod
    def parse(cls, content: bytes, kind: str) -> Stored:
        """Raises FormatError where it is another thing than a `kind`."""
        start, zero, body = content.partition(b"\0")
        parts = start.decode("ascii", errors="replace").split(" ")
        if not zero or len(parts) != 3 or parts[0] != kind or parts[2] != str(len(body)):
            raise FormatError(f"an object of the message is no {kind}")
        children = tuple(parts[1].split(",")) if parts[1] else ()
        if not all(map(is_object_id, children)):
            raise FormatError(f"a {kind} of the message refers to what is no object")
        return cls(kind, children, body)


class ArrayBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an Array says of its data: `arraychunk_ids` are places among its children, in order."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    arraychunk_ids: tuple[int, ...]


def head(kind: str, children: tuple[str, ...], body_bytes: int) -> bytes:
    """What stands in front of a body."""
    return f"{kind} {','.join(children)} {body_bytes}\0".encode()


def is_object_id(text: str) -> bool:
    """Whether it is a SHA-256."""
    return _ID.fullmatch(text) is not None


def object_id(content: bytes) -> str:
    """The name of an object."""
    return hashlib.sha256(content).hexdigest()


def read_json(body: bytes, kind: type[Body], what: str) -> Body:
    """The JSON of a body. Raises FormatError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"the body of the message's {what} cannot be read: {explained(error, kind)}") from None


def chunks_of(array: Stored) -> tuple[ArrayBody, tuple[str, ...]]:
    """What an Array says, and the chunks of its data in order. Raises FormatError."""
    body = read_json(array.body, ArrayBody, ARRAY)
    if any(not 0 <= place < len(array.children) for place in body.arraychunk_ids):
        raise FormatError("an Array of the message has a chunk that it does not name")
    return body, tuple(array.children[place] for place in body.arraychunk_ids)


def references(stored: Stored, what: str) -> dict[str, str]:
    """The objects that a RecordDict or an ArrayRecord refers to, by their names in it. Raises FormatError."""
    named = read_json(stored.body, dict[str, str], what)
    if not all(is_object_id(name) and name in stored.children for name in named.values()):
        raise FormatError(f"a {what} of the message refers to what is no part of it")
    return named
