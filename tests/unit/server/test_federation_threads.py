"""The SuperLink works on few requests at once."""

from __future__ import annotations

import asyncio
import threading
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from server.federation.flower.threads import FewThreads

_lock, _now, _most = threading.Lock(), [0], [0]


def _slow(request: Request) -> PlainTextResponse:
    with _lock:
        _now[0] += 1
        _most[0] = max(_most[0], _now[0])
    time.sleep(0.02)
    with _lock:
        _now[0] -= 1
    return PlainTextResponse("done")


def test_no_more_requests_are_worked_on_at_once_than_there_are_threads() -> None:
    async def ask(client: TestClient) -> list[int]:
        return [(await asyncio.to_thread(client.get, "/")).status_code]

    async def all_at_once(client: TestClient) -> list[list[int]]:
        return await asyncio.gather(*(ask(client) for _ in range(12)))

    with TestClient(FewThreads(Starlette(routes=[Route("/", _slow)]), 2)) as client:
        assert asyncio.run(all_at_once(client)) == [[200]] * 12
    assert 1 <= _most[0] <= 2
