"""A device's link to its SuperLink: messages in, files into files, replies out.

    with Link(address, ca=ca, key=NodeKey.load(path), node_file=state / "node") as link:
        link.activate()
        while True:
            incoming = link.pull()
            ...

What is down is tried again with longer and longer pauses, for ever or until the `deadline` of a call, a
`time.monotonic()`; whatever concerns a message ends when it expires. Errors are those of `errors.py`.
"""

from __future__ import annotations

import time
from functools import partial

from device_profiles.errors import FormatError
from device_profiles.federation import FILES, JSON, ORDER, SIGNATURE
from edge_runtime.device.fleet_api.address import Address, tls_context
from edge_runtime.device.fleet_api.connection import Connection
from edge_runtime.device.fleet_api.errors import LinkDownError
from edge_runtime.device.fleet_api.fetching import fetch
from edge_runtime.device.fleet_api.incoming import Incoming
from edge_runtime.device.fleet_api.membership import Heartbeat, activate, deactivate
from edge_runtime.device.fleet_api.messages import (
    ConfigRecord,
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    Node,
    PullMessagesRequest,
    PullMessagesResponse,
)
from edge_runtime.device.fleet_api.node_file import NodeFile
from edge_runtime.device.fleet_api.objects import ARRAYS, CONFIG, MESSAGE, RECORDS, references
from edge_runtime.device.fleet_api.patience import Patience
from edge_runtime.device.fleet_api.pulling import Puller
from edge_runtime.device.fleet_api.replying import Reply, push
from edge_runtime.device.fleet_api.wire import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from device_profiles.federation import SentFile
    from edge_runtime.device.fleet_api.errors import LinkError
    from edge_runtime.device.fleet_api.keys import NodeKey

TIMEOUT_SECONDS = 60.0


class Link:
    """One node of one federation. All methods but `lost` belong to one thread."""

    def __init__(
        self,
        address: str,
        *,
        ca: Path | None,
        key: NodeKey,
        node_file: Path | None = None,
        insecure: bool = False,
        timeout: float = TIMEOUT_SECONDS,
        stop: threading.Event | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        """Nothing is sent yet. Raises UsageError.

        Args:
            address: `HOST:PORT`.
            ca: the certificate that the SuperLink's is verified with; None for the system's authorities.
            node_file: where the node's number is kept, without which a restart is taken back only after a minute.
            insecure: plain HTTP, to this machine alone.
            timeout: of one answer, in seconds.
            stop: ends whatever waits for the link.
            notice: called with a line when the link goes down, and when it is back.
        """
        where = Address.parse(address)
        context = tls_context(where, ca, insecure=insecure)
        self._key = key
        self._known = NodeFile(node_file)
        self._connect = partial(Connection, where, context, key, ca=ca, timeout=timeout)
        self._connection = self._connect()
        self._patience = Patience(stop, notice)
        self._puller = Puller(self._connection, self._patience)
        self._records: tuple[str, dict[str, str]] = ("", {})
        self._heartbeat: Heartbeat | None = None
        self._node: int | None = None
        self._answered_in = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def activate(self, deadline: float | None = None) -> int:
        """Be online from now on; the number of the node. Raises KeyRefusedError and every other LinkError."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._node = activate(self._connection, self._patience, self._key.public_pem, self._known, deadline)
        self._heartbeat = Heartbeat(self._connect(), self._node)
        self._heartbeat.start()
        return self._node

    @property
    def lost(self) -> LinkError | None:
        """Why the SuperLink takes no heartbeat of this device any more, such as a revoked key; any thread may ask."""
        return None if self._heartbeat is None else self._heartbeat.lost

    @property
    def answered_in(self) -> float:
        """Seconds that the last answer to `pull` took, without an outage before it."""
        return self._answered_in

    def deactivate(self) -> None:
        """Leave the federation for now; nothing is raised."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._node is not None:
            deactivate(self._connection, self._node)
            self._node = None

    def close(self) -> None:
        """End the connections; to the SuperLink the node stays online until it misses its heartbeats."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._connection.close()

    def pull(self, deadline: float | None = None) -> Incoming | None:
        """The oldest message for this node, None where there is none.

        A SuperLink hands out a message once: it should be kept in a file before anything else is done.
        """
        assert self._node is not None, "activate first"
        request = PullMessagesRequest(node=Node(node_id=self._node))

        def ask() -> PullMessagesResponse:
            began = time.monotonic()
            response = self._connection.ask("pull-messages", request, PullMessagesResponse)
            self._answered_in = time.monotonic() - began
            return response

        answer = self._patience.until(deadline, ask)
        if not answer.messages_list:
            return None
        return Incoming.of(answer.messages_list[0].metadata)

    def order(self, incoming: Incoming, deadline: float | None = None) -> tuple[bytes, bytes | None]:
        """Its document and the signature of it. Raises FormatError where it is no message of a profl server."""
        records = self._records_of(incoming, deadline)
        if ORDER not in records:
            raise FormatError(f"the message {incoming.type} has no record {ORDER}")
        stored = self._puller.small(incoming, records[ORDER], CONFIG, deadline)
        values = {item.key: item.value.bytes for item in decode(ConfigRecord, stored.body).items if item.value}
        document = values.get(JSON)
        if document is None:
            raise FormatError(f"the message {incoming.type} has no {JSON} in its record {ORDER}")
        return document, values.get(SIGNATURE)

    def files(self, incoming: Incoming, deadline: float | None = None) -> dict[str, str]:
        """Names of its files, and for each what `fetch` needs to know."""
        records = self._records_of(incoming, deadline)
        if FILES not in records:
            return {}
        stored = self._puller.small(incoming, records[FILES], ARRAYS, deadline)
        return references(stored, ARRAYS)

    def fetch(
        self, incoming: Incoming, file: str, path: Path, expected: SentFile, deadline: float | None = None
    ) -> None:
        """Write a file of the message to `path`; chunks that an earlier attempt left there are not fetched again.

        Args:
            file: a value of `files`.
            expected: what the order says of it. Raises DigestError or FormatError where it is another file.
        """
        fetch(self._puller, incoming, file, path, expected, deadline)

    def confirm(self, incoming: Incoming, deadline: float | None = None) -> None:
        """All that is wanted of the message was fetched: the SuperLink may forget it, but still takes the reply."""
        request = ConfirmMessageReceivedRequest(
            node=Node(node_id=incoming.node), run_id=incoming.run_id, message_object_id=incoming.message_id
        )
        end = incoming.deadline(deadline)
        try:
            self._patience.until(
                end, lambda: self._connection.ask("confirm-message-received", request, ConfirmMessageReceivedResponse)
            )
        except LinkDownError as error:
            raise incoming.expired_or(error) from None

    def reply(
        self,
        incoming: Incoming,
        document: bytes,
        files: Mapping[str, Path],
        *,
        seconds: float,
        created_at: float | None = None,
        deadline: float | None = None,
    ) -> None:
        """Answer with a document and files, which are sent from where they lie.

        Args:
            seconds: that the work took, for the SuperLink's own statistics.
            created_at: in seconds since 1970. The SuperLink takes one reply to a message: whoever wants to go on with a
                reply after a restart keeps its time, its document and its files. Where the SuperLink lacks nothing of
                such a reply, it is taken for sent.
        """
        created = time.time() if created_at is None else created_at
        again = created_at is not None
        reply = Reply.answer(incoming, document, files, created_at=created, seconds=seconds, again=again)
        push(self._connection, self._patience, reply, deadline)

    def refuse(self, incoming: Incoming, reason: str, deadline: float | None = None) -> None:
        """Answer a message that is none of a profl server, so that its sender does not wait."""
        push(self._connection, self._patience, Reply.refusal(incoming, reason, created_at=time.time()), deadline)

    def _records_of(self, incoming: Incoming, deadline: float | None) -> dict[str, str]:
        held, records = self._records
        if held != incoming.message_id:
            message = self._puller.small(incoming, incoming.message_id, MESSAGE, deadline)
            if len(message.children) != 1:
                raise FormatError(f"the message {incoming.type} has no content")
            stored = self._puller.small(incoming, message.children[0], RECORDS, deadline)
            records = references(stored, RECORDS)
            self._records = (incoming.message_id, records)
        return records
