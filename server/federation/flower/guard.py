"""Which requests reach the SuperLink: Flower serves all APIs at one port, and devices have a use for one of them.

Flower checks that a device asks in its own name, but not that the answers that it sends are its own: whoever knows the
id of another's message could answer it, and the real answer would be refused as the second one. The guard does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from flwr.proto.fleet_pb2 import PushMessagesRequest
from google.protobuf.message import DecodeError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET = "/v1/fleet/"
_NOT_FOR_DEVICES = (f"{FLEET}register-node", f"{FLEET}unregister-node")
"""Who is a device is the server's to say."""
_ANSWERS = f"{FLEET}push-messages"
MOST_BYTES = 16 << 20
"""Of a request: objects travel in chunks of 5 MiB, and Flower reads a request whole before it asks who sends it."""


class TooLarge(Exception):
    """A request that is larger than any that Flower's own clients send."""


class Guard:
    """Lets devices' requests through to the Fleet API alone, and those of the server's processes to the others.

    `inner` is the SuperLink's application; `inner_ports` are those that only processes of this machine reach.
    """

    def __init__(self, inner: Application, inner_ports: Collection[int]) -> None:
        self._inner = inner
        self._inner_ports = frozenset(inner_ports)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] == "lifespan" or self._is_from_inside(scope):
            await self._inner(scope, receive, send)
        elif scope["type"] != "http" or not self._is_for_devices(scope):
            await _refuse(scope, receive, send, 404)
        elif _declared(scope) > MOST_BYTES:
            await _refuse(scope, receive, send, 413)
        else:
            await self._counted(scope, receive, send)

    def _is_from_inside(self, scope: Scope) -> bool:
        server = scope.get("server")
        return server is not None and server[1] in self._inner_ports

    def _is_for_devices(self, scope: Scope) -> bool:
        path = scope["path"]
        return scope["method"] == "POST" and path.startswith(FLEET) and path not in _NOT_FOR_DEVICES

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request whose body ends the connection where it grows beyond what it may."""
        seen, started = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MOST_BYTES:
                raise TooLarge
            return message

        if scope["path"] == _ANSWERS:
            try:
                body = await _whole(counted)
            except TooLarge:
                await _refuse(scope, receive, send, 413)
                return
            if not _own(body):
                await _refuse(scope, receive, send, 403)
                return
            await self._inner(scope, _again(body, receive), send)
            return

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._inner(scope, counted, sent)
        except TooLarge:
            if not started:
                await _refuse(scope, receive, send, 413)


async def _whole(receive: Receive) -> bytes:
    """A request's body; what there was of it, where the sender has gone away."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read, and then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _own(body: bytes) -> bool:
    """Whether all answers of a request are from its sender; what cannot be read is for Flower to refuse."""
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return True
    return all(message.metadata.src_node_id == request.node.node_id for message in request.messages_list)


def _declared(scope: Scope) -> int:
    """Bytes of the body as the request states them; more than any may have where that is no number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else MOST_BYTES + 1
    return 0


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
