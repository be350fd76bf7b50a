"""A reply: its objects, of which the chunks of files stay in their files, and how they reach the SuperLink."""

from __future__ import annotations

import hashlib
import os
from functools import partial

import msgspec

from device_profiles.errors import ExecutionError
from device_profiles.federation import FILE_TYPE, FILES, JSON, ORDER
from edge_runtime.device.fleet_api.errors import LinkDownError, MessageGoneError
from edge_runtime.device.fleet_api.messages import (
    ConfigItem,
    ConfigRecord,
    ConfigRecordValue,
    Error,
    Message,
    Metadata,
    Node,
    ObjectTree,
    PushMessagesRequest,
    PushMessagesResponse,
    PushObjectRequest,
    PushObjectResponse,
    RecordDict,
)
from edge_runtime.device.fleet_api.objects import (
    ARRAY,
    ARRAYS,
    CHUNK,
    CHUNK_BYTES,
    CONFIG,
    MESSAGE,
    RECORDS,
    Stored,
    head,
)
from edge_runtime.device.fleet_api.wire import LENGTH_TYPE, encode, tag, varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edge_runtime.device.fleet_api.connection import Connection
    from edge_runtime.device.fleet_api.incoming import Incoming
    from edge_runtime.device.fleet_api.patience import Patience

_PIECE_BYTES = 64 << 10
_CONTENT_FIELD, _SESSION_FIELD = 4, 5
"""Of flwr's PushObjectRequest."""
_MAX_SESSIONS = 20
CLIENT_FAILED = 2
"""flwr's `ErrorCode.CLIENT_APP_RAISED_EXCEPTION`"""


class _FileChunk:
    """A chunk that is read from its file each time it is needed."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._path, self._start, self._size = path, start, size
        self.bytes = len(head(CHUNK, (), size)) + size

    def pieces(self) -> Iterator[bytes]:
        """Raises ExecutionError where the file is not there any more, or shorter."""
        yield head(CHUNK, (), self._size)
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(self._start)
                left = self._size
                while left:
                    piece = file.read(min(_PIECE_BYTES, left))
                    if not piece:
                        raise ExecutionError(f"{self._path}: became shorter while it was sent")
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise ExecutionError(f"{self._path}: cannot be read: {error.strerror or error}") from None


class _Held:
    """An object in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.bytes = len(content)

    def pieces(self) -> Iterator[bytes]:
        yield self._content


class Reply:
    """A whole reply. Built again of the same parts, `created_at` among them, it is the same one to the SuperLink.

    Attributes:
        request: without its objects.
        objects: by their names, children before their parents.
        root: the name of the message's own object.
        again: it may have been sent before, perhaps as a whole.
    """

    def __init__(self, incoming: Incoming, created_at: float, seconds: float, *, again: bool) -> None:
        self.incoming = incoming
        self.again = again
        self.objects: dict[str, _FileChunk | _Held] = {}
        self.root = ""
        self._created_at = created_at
        self._seconds = seconds
        self.request = PushMessagesRequest()

    @classmethod
    def answer(
        cls,
        incoming: Incoming,
        document: bytes,
        files: Mapping[str, Path],
        *,
        created_at: float,
        seconds: float,
        again: bool,
    ) -> Reply:
        """With a document and files, which are read once to name their chunks. Raises ExecutionError."""
        self = cls(incoming, created_at, seconds, again=again)
        item = ConfigItem(key=JSON, value=ConfigRecordValue(bytes=document))
        order = self._add(CONFIG, (), encode(ConfigRecord(items=(item,))))
        arrays = {name: self._add_file(path) for name, path in files.items()}
        names = {name: array.object_id for name, array in arrays.items()}
        held = self._add(ARRAYS, _once(tuple(arrays.values())), msgspec.json.encode(names))
        records = self._add(
            RECORDS, (order, held), msgspec.json.encode({ORDER: order.object_id, FILES: held.object_id})
        )
        self._complete(records, None)
        return self

    @classmethod
    def refusal(cls, incoming: Incoming, reason: str, *, created_at: float) -> Reply:
        """That this device does not know what to do with the message, for servers of other applications."""
        self = cls(incoming, created_at, 0.0, again=False)
        self._complete(None, Error(code=CLIENT_FAILED, reason=reason))
        return self

    def _add(self, kind: str, children: tuple[ObjectTree, ...], body: bytes) -> ObjectTree:
        content = Stored(kind, tuple(child.object_id for child in children), body).content
        name = hashlib.sha256(content).hexdigest()
        self.objects[name] = _Held(content)
        return ObjectTree(object_id=name, children=children)

    def _add_file(self, path: Path) -> ObjectTree:
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise ExecutionError(f"{path}: cannot be read: {error.strerror or error}") from None
        chunks = [self._add_chunk(path, start, size) for start in range(0, size, CHUNK_BYTES)]
        children = _once(tuple(chunks))
        places = {child.object_id: place for place, child in enumerate(children)}
        body = {
            "dtype": "uint8",
            "shape": [size],
            "stype": FILE_TYPE,
            "arraychunk_ids": [places[chunk.object_id] for chunk in chunks],
        }
        return self._add(ARRAY, children, msgspec.json.encode(body))

    def _add_chunk(self, path: Path, start: int, size: int) -> ObjectTree:
        chunk = _FileChunk(path, start, min(CHUNK_BYTES, size - start))
        digest = hashlib.sha256()
        for piece in chunk.pieces():
            digest.update(piece)
        name = digest.hexdigest()
        self.objects[name] = chunk
        return ObjectTree(object_id=name)

    def _complete(self, records: ObjectTree | None, error: Error | None) -> None:
        incoming = self.incoming
        metadata = Metadata(
            run_id=incoming.run_id,
            src_node_id=incoming.node,
            dst_node_id=incoming.sender,
            reply_to_message_id=incoming.message_id,
            group_id=incoming.group,
            ttl=incoming.created_at + incoming.ttl - self._created_at,
            message_type=incoming.type,
            created_at=self._created_at,
            src_task_id=incoming.node_task,
            dst_task_id=incoming.sender_task,
        )
        children = () if records is None else (records,)
        tree = self._add(MESSAGE, children, encode(Message(metadata=metadata, error=error)))
        self.root = tree.object_id
        named = msgspec.structs.replace(metadata, message_id=tree.object_id)
        content = None if records is None else RecordDict()
        self.request = PushMessagesRequest(
            node=Node(node_id=incoming.node),
            messages_list=(Message(metadata=named, content=content, error=error),),
            message_object_trees=(tree,),
            clientapp_runtime_list=(self._seconds,),
        )


def _once(trees: tuple[ObjectTree, ...]) -> tuple[ObjectTree, ...]:
    return tuple({tree.object_id: tree for tree in trees}.values())


def push(connection: Connection, patience: Patience, reply: Reply, deadline: float | None) -> None:
    """Send a reply, of its objects those that the SuperLink lacks.

    Raises MessageGoneError where it takes no reply to this message (any more), RunEndedError, LinkDownError.
    """
    end = reply.incoming.deadline(deadline)
    try:
        for session in range(_MAX_SESSIONS):
            begun = patience.until(end, lambda: connection.ask("push-messages", reply.request, PushMessagesResponse))
            if session == 0 and not reply.again and reply.root not in begun.objects_to_push:
                raise MessageGoneError("the SuperLink takes no reply to this message: it expired, or has one already")
            if _push_lacking(connection, patience, reply, begun, end):
                return
        raise LinkDownError("the SuperLink lets go of this reply again and again")
    except LinkDownError as error:
        raise reply.incoming.expired_or(error) from None


def _push_lacking(
    connection: Connection, patience: Patience, reply: Reply, begun: PushMessagesResponse, end: float
) -> bool:
    """Whether the SuperLink has all objects now; no where it has ended the session in between."""
    lacking = set(begun.objects_to_push)
    for name in reply.objects:
        if name in lacking:
            attempt = partial(_push_object, connection, reply, name, begun.session_id)
            if not patience.until(end, attempt):
                return False
    return True


def _push_object(connection: Connection, reply: Reply, name: str, session: str) -> bool:
    held = reply.objects[name]
    node = Node(node_id=reply.incoming.node)
    front = encode(PushObjectRequest(node=node, run_id=reply.incoming.run_id, object_id=name))
    front += tag(_CONTENT_FIELD, LENGTH_TYPE) + varint(held.bytes)
    back = tag(_SESSION_FIELD, LENGTH_TYPE) + varint(len(session.encode())) + session.encode()

    def body() -> Iterator[bytes]:
        yield front
        yield from held.pieces()
        yield back

    size = len(front) + held.bytes + len(back)
    return connection.send("push-object", body(), size, PushObjectResponse).stored
