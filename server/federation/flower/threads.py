"""How many requests the SuperLink works on at once.

Flower answers each in one of 40 threads, and almost every answer writes to its SQLite database, which one can do at a
time: with 100 devices the others spend the processor's time on waiting and asking again. With few threads requests
wait in line instead, and a round of 100 devices takes a fifth less (`python -m tools.bench.superlink_load`).
"""

from __future__ import annotations

from anyio.to_thread import current_default_thread_limiter

from server.federation.flower.guard import Application, Receive, Scope, Send

THREADS = 4
"""More than one: a request that waits, as for a run's log, holds up no other."""


class FewThreads:
    """An application whose synchronous handlers share `count` threads from its start on."""

    def __init__(self, inner: Application, count: int = THREADS) -> None:
        self._inner = inner
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] == "lifespan":
            current_default_thread_limiter().total_tokens = self._count
        await self._inner(scope, receive, send)
