"""What reaches the SuperLink from a network: the Fleet API alone, in requests no larger than Flower's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.federation.flower.guard import MOST_BYTES, Guard, Message, Receive, Scope, Send

DEVICES, INNER = 9092, 40000


class Asked:
    """An application that notes what reached it, and the answer that was given."""

    def __init__(self) -> None:
        self.reached = False
        self.body = 0
        self.status: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached = True
        while True:
            message = await receive()
            self.body += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _ask(
    path: str, *, port: int = DEVICES, method: str = "POST", length: bytes | None = None, pieces: Any = ()
) -> Asked:
    asked = Asked()
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            asked.status = message["status"]

    headers = [(b"content-length", length)] if length is not None else []
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "server": ("10.0.0.1", port)}
    asyncio.run(Guard(asked, [INNER])(scope, receive, send))
    return asked


@pytest.mark.parametrize("path", ["pull-messages", "push-object", "activate-node", "send-node-heartbeat"])
def test_devices_reach_the_fleet_api(path: str) -> None:
    asked = _ask(f"/v1/fleet/{path}", pieces=[b"abc"])
    assert (asked.status, asked.body) == (200, 3)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet",
        "/docs",
        "/openapi.json",
        "/health",
        "/",
        "/v1/fleet/../control/start-run".replace("/fleet/..", ""),
    ],
)
def test_devices_reach_nothing_else(path: str) -> None:
    asked = _ask(path)
    assert (asked.reached, asked.status) == (False, 404)
    assert _ask(path, port=INNER).status == 200


def test_the_fleet_api_is_only_posted_to() -> None:
    assert _ask("/v1/fleet/pull-messages", method="GET").status == 404


@pytest.mark.parametrize("length", [str(MOST_BYTES + 1).encode(), b"-1", b"many", b"9" * 40])
def test_a_request_that_says_it_is_too_large_is_not_read(length: bytes) -> None:
    asked = _ask("/v1/fleet/push-object", length=length)
    assert (asked.reached, asked.status) == (False, 413)


def test_a_request_that_grows_too_large_is_given_up() -> None:
    piece = b"x" * (MOST_BYTES // 4)
    assert _ask("/v1/fleet/push-object", pieces=[piece] * 4).status == 200
    asked = _ask("/v1/fleet/push-object", pieces=[piece] * 5)
    assert asked.status == 413 and asked.body <= MOST_BYTES


def test_web_sockets_of_devices_are_closed() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asked = Asked()
    scope = {"type": "websocket", "path": "/v1/fleet/x", "headers": [], "server": ("10.0.0.1", DEVICES)}
    asyncio.run(Guard(asked, [INNER])(scope, receive, send))
    assert not asked.reached and sent == [{"type": "websocket.close", "code": 1008}]
