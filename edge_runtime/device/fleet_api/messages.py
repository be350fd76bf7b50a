"""The messages of flwr 1.41's Fleet API that a device needs (`flwr/proto/*.proto`), and no more of their fields."""

from __future__ import annotations

from typing import ClassVar

from edge_runtime.device.fleet_api.wire import (
    BOOL,
    BYTES,
    DOUBLE,
    MESSAGE,
    SINT64,
    STRING,
    UINT64,
    Field,
    WireMessage,
)


class Node(WireMessage, frozen=True):
    """Who asks."""

    node_id: int = 0

    FIELDS: ClassVar = (Field(1, "node_id", UINT64),)


class Metadata(WireMessage, frozen=True):
    """Of a message: `created_at` in seconds since 1970, `ttl` in seconds."""

    run_id: int = 0
    message_id: str = ""
    src_node_id: int = 0
    dst_node_id: int = 0
    reply_to_message_id: str = ""
    group_id: str = ""
    ttl: float = 0.0
    message_type: str = ""
    created_at: float = 0.0
    src_task_id: int | None = None
    dst_task_id: int | None = None

    FIELDS: ClassVar = (
        Field(1, "run_id", UINT64),
        Field(2, "message_id", STRING),
        Field(3, "src_node_id", UINT64),
        Field(4, "dst_node_id", UINT64),
        Field(5, "reply_to_message_id", STRING),
        Field(6, "group_id", STRING),
        Field(7, "ttl", DOUBLE),
        Field(8, "message_type", STRING),
        Field(9, "created_at", DOUBLE),
        Field(10, "src_task_id", UINT64),
        Field(11, "dst_task_id", UINT64),
    )


class RecordDict(WireMessage, frozen=True):
    """Stands for a content whose records travel as objects."""


class Error(WireMessage, frozen=True):
    """In the place of a content: `code` is one of flwr's `ErrorCode`."""

    code: int = 0
    reason: str = ""

    FIELDS: ClassVar = (Field(1, "code", SINT64), Field(2, "reason", STRING))


class Message(WireMessage, frozen=True):
    """A message; what it holds is fetched and pushed as objects."""

    metadata: Metadata | None = None
    content: RecordDict | None = None
    error: Error | None = None

    FIELDS: ClassVar = (
        Field(1, "metadata", MESSAGE, Metadata),
        Field(2, "content", MESSAGE, RecordDict),
        Field(3, "error", MESSAGE, Error),
    )


class ObjectTree(WireMessage, frozen=True):
    """An object, by the SHA-256 of its bytes, and the objects that it refers to."""

    object_id: str = ""
    children: tuple[ObjectTree, ...] = ()

    FIELDS: ClassVar = (Field(1, "object_id", STRING), Field(2, "children", MESSAGE, None, repeated=True))


class ConfigRecordValue(WireMessage, frozen=True):
    """One of them is set; values of other types are not read."""

    string: str | None = None
    bytes: bytes | None = None

    FIELDS: ClassVar = (Field(5, "string", STRING), Field(6, "bytes", BYTES))


class ConfigItem(WireMessage, frozen=True):
    """`ConfigRecord.Item`."""

    key: str = ""
    value: ConfigRecordValue | None = None

    FIELDS: ClassVar = (Field(1, "key", STRING), Field(2, "value", MESSAGE, ConfigRecordValue))


class ConfigRecord(WireMessage, frozen=True):
    """Values by their names."""

    items: tuple[ConfigItem, ...] = ()

    FIELDS: ClassVar = (Field(1, "items", MESSAGE, ConfigItem, repeated=True),)


class ActivateNodeRequest(WireMessage, frozen=True):
    """`public_key` in PEM, byte for byte as it was registered; `heartbeat_interval` in seconds."""

    public_key: bytes = b""
    heartbeat_interval: float = 0.0

    FIELDS: ClassVar = (Field(1, "public_key", BYTES), Field(2, "heartbeat_interval", DOUBLE))


class ActivateNodeResponse(WireMessage, frozen=True):
    """Which node this key is."""

    node_id: int = 0

    FIELDS: ClassVar = (Field(1, "node_id", UINT64),)


class DeactivateNodeRequest(WireMessage, frozen=True):
    """This node leaves."""

    node_id: int = 0

    FIELDS: ClassVar = (Field(1, "node_id", UINT64),)


class DeactivateNodeResponse(WireMessage, frozen=True):
    """It has left."""


class SendNodeHeartbeatRequest(WireMessage, frozen=True):
    """The node is there for twice `heartbeat_interval` seconds."""

    node: Node | None = None
    heartbeat_interval: float = 0.0

    FIELDS: ClassVar = (Field(1, "node", MESSAGE, Node), Field(2, "heartbeat_interval", DOUBLE))


class SendNodeHeartbeatResponse(WireMessage, frozen=True):
    """`success`: the node is registered."""

    success: bool = False

    FIELDS: ClassVar = (Field(1, "success", BOOL),)


class PullMessagesRequest(WireMessage, frozen=True):
    """The oldest message for this node."""

    node: Node | None = None

    FIELDS: ClassVar = (Field(1, "node", MESSAGE, Node),)


class PullMessagesResponse(WireMessage, frozen=True):
    """At most one message. Its tree of objects is not read: the objects say themselves what they refer to."""

    messages_list: tuple[Message, ...] = ()

    FIELDS: ClassVar = (Field(2, "messages_list", MESSAGE, Message, repeated=True),)


class PushMessagesRequest(WireMessage, frozen=True):
    """A reply, without its objects."""

    node: Node | None = None
    messages_list: tuple[Message, ...] = ()
    message_object_trees: tuple[ObjectTree, ...] = ()
    clientapp_runtime_list: tuple[float, ...] = ()

    FIELDS: ClassVar = (
        Field(1, "node", MESSAGE, Node),
        Field(2, "messages_list", MESSAGE, Message, repeated=True),
        Field(3, "message_object_trees", MESSAGE, ObjectTree, repeated=True),
        Field(4, "clientapp_runtime_list", DOUBLE, None, repeated=True),
    )


class PushMessagesResponse(WireMessage, frozen=True):
    """The objects that the SuperLink lacks."""

    objects_to_push: tuple[str, ...] = ()
    session_id: str = ""

    FIELDS: ClassVar = (Field(3, "objects_to_push", STRING, None, repeated=True), Field(4, "session_id", STRING))


class PullObjectRequest(WireMessage, frozen=True):
    """One object."""

    node: Node | None = None
    run_id: int = 0
    object_id: str = ""

    FIELDS: ClassVar = (Field(1, "node", MESSAGE, Node), Field(2, "run_id", UINT64), Field(3, "object_id", STRING))


class PullObjectResponse(WireMessage, frozen=True):
    """`object_available`: its bytes have arrived at the SuperLink."""

    object_found: bool = False
    object_available: bool = False
    object_content: bytes = b""

    FIELDS: ClassVar = (
        Field(1, "object_found", BOOL),
        Field(2, "object_available", BOOL),
        Field(3, "object_content", BYTES),
    )


class PushObjectRequest(WireMessage, frozen=True):
    """One object that the SuperLink lacks."""

    node: Node | None = None
    run_id: int = 0
    object_id: str = ""
    object_content: bytes = b""
    session_id: str = ""

    FIELDS: ClassVar = (
        Field(1, "node", MESSAGE, Node),
        Field(2, "run_id", UINT64),
        Field(3, "object_id", STRING),
        Field(4, "object_content", BYTES),
        Field(5, "session_id", STRING),
    )


class PushObjectResponse(WireMessage, frozen=True):
    """`stored`: no where the session is over."""

    stored: bool = False

    FIELDS: ClassVar = (Field(1, "stored", BOOL),)


class ConfirmMessageReceivedRequest(WireMessage, frozen=True):
    """All objects of the message were fetched."""

    node: Node | None = None
    run_id: int = 0
    message_object_id: str = ""

    FIELDS: ClassVar = (
        Field(1, "node", MESSAGE, Node),
        Field(2, "run_id", UINT64),
        Field(3, "message_object_id", STRING),
    )


class ConfirmMessageReceivedResponse(WireMessage, frozen=True):
    """The SuperLink has let go of them."""
