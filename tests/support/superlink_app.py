"""`flower-superlink` with another number of threads: `python -m tests.support.superlink_app THREADS OPTIONS...`."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from flwr.superlink.cli.flower_superlink import flower_superlink

from server.federation.flower.threads import FewThreads


def main() -> None:
    """Until it is ended."""
    threads, run = int(sys.argv.pop(1)), uvicorn.run

    def with_threads(app: Any, **options: Any) -> None:
        run(FewThreads(app, threads), **options)

    uvicorn.run = with_threads  # type: ignore[assignment]
    flower_superlink()


if __name__ == "__main__":
    main()
