"""Messages of a federation as Flower carries them (`device_profiles.federation`): what is sent, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from device_profiles.errors import ExecutionError
from device_profiles.federation import FILE_TYPE, FILES, JSON, ORDER, SIGNATURE
from server.engines.flower.signing import OrderKey
from server.judging.strangers import plain

_DOCUMENT_BYTES = 1 << 24
"""A profile is the longest document: a row for each program of its bundle."""
_ERRORS = {
    3: "its answer did not arrive whole",
    4: "its answer came too late",
    5: "went away before it answered",
    7: "has no app of this run",
    8: "its client app died",
}
"""Flower's error codes in the words of this program."""


class Grid(Protocol):
    """What is used of Flower's `Grid`."""

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are connected."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Store messages for their nodes; an id for each, or nothing in its place."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Those answers to these messages that have come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """What goes to one node.

    Attributes:
        kind: a message type of `device_profiles.federation`.
        document: JSON, of which the signature is made.
        files: shared by all letters that carry the same ones, so that Flower stores them once.
        seconds: after which nobody waits for an answer any more.
    """

    node: int
    kind: str
    document: bytes
    seconds: float
    files: ArrayRecord | None = None
    group: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came back to one letter: a document with files, or the reason why there is none."""

    sender: int
    document: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict)
    error: str | None = None


class Mail:
    """Sends letters and fetches the answers to them, one at a time; may be used by several threads.

    Only a SuperLink that cannot be reached is an exception (ExecutionError): whatever else goes wrong is about one
    letter, and said as its reply.
    """

    def __init__(self, grid: Grid, key: OrderKey | None) -> None:
        self._grid = grid
        self._key = key

    def nodes(self) -> list[int]:
        """Nodes that are connected."""
        try:
            return list(self._grid.get_node_ids())
        except httpx.HTTPError as error:  # a run that was stopped is refused
            raise _unreachable(error) from None

    def send(self, letter: Letter) -> str | Reply:
        """The id of what was sent, or why it was not."""
        records: dict[str, Any] = {ORDER: ConfigRecord(self._signed(letter.document))}
        if letter.files is not None:
            records[FILES] = letter.files
        try:
            content = RecordDict(records)
            message = Message(content, letter.node, letter.kind, ttl=letter.seconds, group_id=letter.group)
            sent = list(self._grid.push_messages([message]))
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        except Exception as error:  # one client must not end the round of all others
            return Reply(sender=letter.node, error=f"could not be sent: {_said(error)}")
        if len(sent) != 1 or not sent[0]:
            return Reply(sender=letter.node, error="could not be sent: the SuperLink did not take it")
        return sent[0]

    def fetch(self, message_id: str, node: int) -> Reply | None:
        """The answer to what was sent to `node`, None where there is none yet."""
        try:
            found = list(self._grid.pull_messages([message_id]))
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        except Exception as error:  # what a client sends is inflated there
            return Reply(sender=node, error=f"unreadable answer: {_said(error)}")
        if not found:
            return None
        try:
            return _read(found[0], node)
        except Exception as error:  # records of any kind, by a stranger
            return Reply(sender=node, error=f"unreadable answer: {_said(error)}")

    def _signed(self, document: bytes) -> dict[str, Any]:
        return {JSON: document} | ({} if self._key is None else {SIGNATURE: self._key.sign(document)})


def file_array(content: bytes) -> Array:
    """The bytes of a file as they travel."""
    return Array("uint8", (len(content),), FILE_TYPE, content)


def _read(message: Message, node: int) -> Reply:
    if message.has_error():
        code, reason = message.error.code, message.error.reason or ""
        return Reply(sender=node, error=_ERRORS.get(code) or f"error {code} of its client: {plain(reason)}")
    sender = message.metadata.src_node_id
    if sender != node:
        return Reply(sender=sender, error=f"node {sender} answered in the place of another one")
    order = message.content.get(ORDER)
    document = order.get(JSON) if isinstance(order, ConfigRecord) else None
    if not isinstance(document, bytes) or len(document) > _DOCUMENT_BYTES:
        return Reply(sender=sender, error="unreadable answer: holds no document")
    files = message.content.get(FILES)
    arrays = files if isinstance(files, ArrayRecord) else {}
    return Reply(
        sender=sender,
        document=document,
        files={name: array.data for name, array in arrays.items() if array.stype == FILE_TYPE},
    )


def _said(error: Exception) -> str:
    return plain(str(error) or type(error).__name__)


def _unreachable(error: Exception) -> ExecutionError:
    return ExecutionError(
        f"the SuperLink does not answer: {_said(error)}", remedy="start it, then continue with --resume"
    )
