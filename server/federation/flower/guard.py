"""Which requests reach the SuperLink: Flower serves all APIs at one port, and devices have a use for one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET = "/v1/fleet/"
_NOT_FOR_DEVICES = (f"{FLEET}register-node", f"{FLEET}unregister-node")
"""Who is a device is the server's to say."""
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

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._inner(scope, counted, sent)
        except TooLarge:
            if not started:
                await _refuse(scope, receive, send, 413)


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
