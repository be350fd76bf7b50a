"""Being a node of a federation: activation, heartbeats, leaving."""

from __future__ import annotations

import random
import threading
import time

from edge_runtime.device.fleet_api.connection import ActivationRefusedError
from edge_runtime.device.fleet_api.errors import KeyRefusedError, LinkDownError, LinkError
from edge_runtime.device.fleet_api.messages import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    Node,
    SendNodeHeartbeatRequest,
    SendNodeHeartbeatResponse,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from edge_runtime.device.fleet_api.connection import Connection
    from edge_runtime.device.fleet_api.node_file import NodeFile
    from edge_runtime.device.fleet_api.patience import Patience

HEARTBEAT_SECONDS = 30.0
"""A SuperLink takes a node for gone after twice that."""
MOST_HEARTBEAT_SECONDS = 300.0
_BUSY = 300.0
"""Times what the last heartbeat took. From a busy SuperLink those of a thousand devices would take all of its time."""
FIRST_HEARTBEAT_SECONDS = 10.0
"""The shortest that a SuperLink accepts: of a node whose number is not in its file yet."""
_RETRY_SECONDS = 5.0
_REFUSED = "the SuperLink does not know the key of this device, or a device with the same key is online"
_REMEDY = "ask whoever runs it to add this device, or wait a minute and try again"


def beat(connection: Connection, node: int, seconds: float = HEARTBEAT_SECONDS) -> None:
    """Say that the node is there. Raises LinkError."""
    request = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=seconds)
    if not connection.ask("send-node-heartbeat", request, SendNodeHeartbeatResponse).success:
        raise KeyRefusedError("the SuperLink does not know this device any more", remedy=_REMEDY)


def activate(
    connection: Connection, patience: Patience, public_pem: bytes, known: NodeFile, deadline: float | None
) -> int:
    """Become online; the node's number. Raises KeyRefusedError and every other LinkError."""
    node = known.read()
    if node is not None and _is_known(connection, patience, node, deadline):
        return node
    noticed_after = 2 * FIRST_HEARTBEAT_SECONDS + 1 if known.was_activating else 0.0
    known.write(None)
    new = _activate_new(connection, patience, public_pem, time.monotonic() + noticed_after, deadline)
    known.write(new)
    patience.until(deadline, lambda: beat(connection, new))
    return new


def _is_known(connection: Connection, patience: Patience, node: int, deadline: float | None) -> bool:
    """Whether the SuperLink knows this node, which is online then; it may be one of another federation."""
    try:
        patience.until(deadline, lambda: beat(connection, node))
    except KeyRefusedError:
        return False
    return True


def _activate_new(
    connection: Connection, patience: Patience, public_pem: bytes, refused_after: float, deadline: float | None
) -> int:
    request = ActivateNodeRequest(public_key=public_pem, heartbeat_interval=FIRST_HEARTBEAT_SECONDS)
    while True:
        try:
            return patience.until(
                deadline, lambda: connection.ask("activate-node", request, ActivateNodeResponse).node_id
            )
        except ActivationRefusedError:
            if time.monotonic() > refused_after:
                raise KeyRefusedError(_REFUSED, remedy=_REMEDY) from None
            patience.wait(1.0)


def deactivate(connection: Connection, node: int) -> None:
    """Leave at once; a SuperLink that does not answer notices it by the missing heartbeats."""
    try:
        connection.ask("deactivate-node", DeactivateNodeRequest(node_id=node), DeactivateNodeResponse)
    except LinkError:
        connection.close()


def heartbeat_seconds(took: float) -> float:
    """Between two heartbeats, the last of which was answered in `took` seconds."""
    return min(MOST_HEARTBEAT_SECONDS, max(HEARTBEAT_SECONDS, _BUSY * took))


class Heartbeat:
    """Says that the node is there, in a thread and over a connection of its own.

    Attributes:
        lost: why the SuperLink takes no heartbeat any more, None while it does.
    """

    def __init__(self, connection: Connection, node: int) -> None:
        self._connection = connection
        self._node = node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.lost: LinkError | None = None

    def start(self) -> None:
        """The first one is sent after a pause."""
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; the thread ends by itself."""
        self._stop.set()

    def _run(self) -> None:
        seconds = HEARTBEAT_SECONDS
        pause = seconds * random.uniform(0.7, 0.9)
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                # The next one comes within what this one says.
                beat(self._connection, self._node, seconds)
                self.lost = None
                pause = seconds * random.uniform(0.7, 0.9)
                seconds = heartbeat_seconds(time.monotonic() - began)
            except LinkDownError:
                pause = _RETRY_SECONDS * random.uniform(0.7, 1.3)
            except LinkError as error:
                self.lost = error
                pause = seconds * random.uniform(0.7, 0.9)
            self._connection.close()  # rather than keep a TLS session that the SuperLink ends before the next one
