"""Objects of a message from the SuperLink: small ones into memory, chunks through a sink."""

from __future__ import annotations

import hashlib
import time

from device_profiles.errors import DigestError, FormatError
from edge_runtime.device.fleet_api.errors import LinkDownError, MessageGoneError
from edge_runtime.device.fleet_api.messages import Node, PullObjectRequest
from edge_runtime.device.fleet_api.objects import Stored
from edge_runtime.device.fleet_api.source import BUFFER_BYTES, Answer, Source, read_object_answer
from edge_runtime.device.fleet_api.wire import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_runtime.device.fleet_api.connection import Connection
    from edge_runtime.device.fleet_api.incoming import Incoming
    from edge_runtime.device.fleet_api.patience import Patience
    from edge_runtime.device.fleet_api.source import Sink

MAX_OBJECT_BYTES = 4 << 20
"""Of an object that is read into memory: all but chunks."""
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.1, 2.0


class Puller:
    """Fetches over one connection."""

    def __init__(self, connection: Connection, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience
        self._buffer = bytearray(BUFFER_BYTES)

    def small(self, incoming: Incoming, object_id: str, kind: str, deadline: float | None) -> Stored:
        """An object of at most `MAX_OBJECT_BYTES`, which is what its name says.

        Raises FormatError where it is another one, and what `stream` raises.
        """
        held = bytearray()

        def hold(size: int, pieces: Iterator[memoryview]) -> None:
            if size > MAX_OBJECT_BYTES:
                raise FormatError(f"a {kind} of the message has {size} bytes, where {MAX_OBJECT_BYTES} are the most")
            held.clear()
            for piece in pieces:
                held.extend(piece)

        self.stream(incoming, object_id, hold, deadline)
        if hashlib.sha256(held).hexdigest() != object_id:
            raise DigestError(f"a {kind} of the message has another SHA-256 than its name")
        return Stored.parse(bytes(held), kind)

    def stream(self, incoming: Incoming, object_id: str, sink: Sink, deadline: float | None) -> None:
        """Hand an object to `sink`, from its start after each failure; waits for one that is still on its way.

        Raises MessageGoneError, RunEndedError, LinkDownError at the deadline, and what `sink` raises.
        """
        request = PullObjectRequest(node=Node(node_id=incoming.node), run_id=incoming.run_id, object_id=object_id)
        body = encode(request)
        end = incoming.deadline(deadline)

        def attempt() -> Answer:
            with self._connection.exchange("pull-object", (body,), len(body)) as response:
                return read_object_answer(Source(response, self._buffer), sink)

        pause = _FIRST_WAIT_SECONDS
        while True:
            try:
                answer = self._patience.until(end, attempt)
            except LinkDownError as error:
                raise incoming.expired_or(error) from None
            if answer is Answer.WHOLE:
                return
            if answer is Answer.MISSING:
                raise MessageGoneError("the SuperLink keeps the message no more: it expired, or was confirmed before")
            if time.monotonic() + pause > end:
                late = LinkDownError("the message's files did not reach the SuperLink in time")
                raise incoming.expired_or(late)
            self._patience.wait(pause)
            pause = min(2 * pause, _LONGEST_WAIT_SECONDS)
