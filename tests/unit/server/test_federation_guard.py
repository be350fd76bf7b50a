"""What reaches the SuperLink from a network: the Fleet API alone, in requests no larger than Flower's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("flwr", reason="the guard reads Flower's messages")

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata
from flwr.proto.node_pb2 import Node

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


def _answers(asks: int, *senders: int) -> bytes:
    messages = [ProtoMessage(metadata=Metadata(src_node_id=sender)) for sender in senders]
    return bytes(PushMessagesRequest(node=Node(node_id=asks), messages_list=messages).SerializeToString())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (_answers(7, 7), 200),
        (_answers(7), 200),
        (_answers(7, 8), 403),
        (_answers(7, 7, 8), 403),
        (_answers(0, 7), 403),
        (b"\xff\xff", 200),  # Flower refuses it
    ],
)
def test_a_device_answers_in_its_own_name_alone(body: bytes, status: int) -> None:
    asked = _ask("/v1/fleet/push-messages", pieces=[body[:1], body[1:]])
    assert asked.status == status and asked.reached == (status == 200)
    assert asked.body == (len(body) if asked.reached else 0)


def test_answers_that_grow_too_large_are_not_read_to_their_end() -> None:
    asked = _ask("/v1/fleet/push-messages", pieces=[b"x" * MOST_BYTES, b"x", b"x" * MOST_BYTES])
    assert (asked.status, asked.reached) == (413, False)
