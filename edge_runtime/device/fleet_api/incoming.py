"""A message from the server, as a device keeps it while it works on it."""

from __future__ import annotations

import time

import msgspec

from device_profiles.errors import FormatError
from edge_runtime.device.fleet_api.errors import LinkDownError, MessageGoneError
from edge_runtime.device.fleet_api.objects import is_object_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from edge_runtime.device.fleet_api.messages import Metadata


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """Enough to go on with a message after a restart: a SuperLink hands it out once, and keeps it a while.

    Attributes:
        message_id: name of the message's object.
        type: `query.device`, `train.task`.
        created_at: in seconds since 1970, by the server's clock.
        ttl: in seconds; nothing can be fetched and no reply is taken after `created_at + ttl`.
        sender: the server's node.
        node: the one that it is for.
    """

    run_id: int
    message_id: str
    type: str
    created_at: float
    ttl: float
    sender: int
    node: int
    group: str = ""
    sender_task: int | None = None
    node_task: int | None = None

    @classmethod
    def of(cls, metadata: Metadata | None) -> Incoming:
        """Raises FormatError."""
        if metadata is None or not is_object_id(metadata.message_id):
            raise FormatError("the SuperLink gave a message without a name")
        return cls(
            run_id=metadata.run_id,
            message_id=metadata.message_id,
            type=metadata.message_type,
            created_at=metadata.created_at,
            ttl=metadata.ttl,
            sender=metadata.src_node_id,
            node=metadata.dst_node_id,
            group=metadata.group_id,
            sender_task=metadata.src_task_id,
            node_task=metadata.dst_task_id,
        )

    @property
    def seconds_left(self) -> float:
        """Until it expires, by the clock of this device."""
        return self.created_at + self.ttl - time.time()

    def deadline(self, callers: float | None) -> float:
        """The `time.monotonic()` at which it expires, or the caller's, whichever is first."""
        expires = time.monotonic() + self.seconds_left
        return expires if callers is None else min(callers, expires)

    def expired_or(self, error: LinkDownError) -> LinkDownError | MessageGoneError:
        """What to say where the link was down for too long: that the message is gone, once it is."""
        return MessageGoneError(f"the message expired {-self.seconds_left:.0f} s ago") if self.expired else error

    @property
    def expired(self) -> bool:
        """Whether its time is over, give or take the pause that somebody would still wait."""
        return self.seconds_left <= 0
