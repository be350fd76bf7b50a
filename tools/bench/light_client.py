"""Clients that only speak the protocol: `python -m tools.bench.light_client ADDRESS CA FOLDER FIRST COUNT [POLL]`.

Their keys are `key-FIRST` and so on in FOLDER, and each is a thread. It asks as often as a device of a federation, or
every POLL seconds. It fetches the file of every message, and replies
with it. A line is printed when all are online, with the memory of the process; when standard input ends, so do they,
and a last line has the largest that it was.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.federation import SentFile
from edge_runtime.device.federation.asking import Asking
from edge_runtime.device.fleet_api.connection import Connection
from edge_runtime.device.fleet_api.errors import LinkError, LinkStoppedError
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link


def main() -> int:
    """Until standard input ends."""
    address, ca, folder, first, count, *poll = sys.argv[1:]
    every = float(poll[0]) if poll else None
    stop = threading.Event()
    links: list[tuple[Link, Path]] = []
    for number in range(int(first), int(first) + int(count)):
        key = NodeKey.load(Path(folder) / f"key-{number}")
        link = Link(address, ca=Path(ca), key=key, stop=stop)
        node = link.activate()
        link.pull()
        links.append((link, Path(folder) / f"work-{node}"))
    print(json.dumps({"resident_kb": _memory("VmRSS")}), flush=True)
    counter = _count_requests()
    threads = [threading.Thread(target=_serve, args=(*pair, every, stop), daemon=True) for pair in links]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join(10)
    ended = {"peak_kb": _memory("VmHWM"), "resident_after_kb": _memory("VmRSS"), "requests": next(counter)}
    print(json.dumps(ended), flush=True)
    return 0


def _count_requests() -> itertools.count[int]:
    """Counts the requests of this process from now on; its next number is how many they were."""
    counter, exchange = itertools.count(), Connection.exchange

    def counted(*arguments: Any) -> Any:
        next(counter)
        return exchange(*arguments)

    Connection.exchange = counted  # type: ignore[method-assign, assignment]
    return counter


def _serve(link: Link, work: Path, every: float | None, stop: threading.Event) -> None:
    asking, wait = Asking(), 0.0
    while not stop.wait(wait):
        try:
            asking.news() if _answer(link, work) else asking.asked(link.answered_in)
        except LinkStoppedError:
            return
        except LinkError as error:
            print(error, file=sys.stderr, flush=True)
        wait = max(0.05, asking.seconds_left) if every is None else every * random.uniform(0.5, 1.0)


def _answer(link: Link, work: Path) -> bool:
    incoming = link.pull()
    if incoming is None:
        return False
    document, _ = link.order(incoming)
    expected = msgspec.json.decode(document, type=SentFile)
    link.fetch(incoming, link.files(incoming)["file"], work, expected)
    link.confirm(incoming)
    link.reply(incoming, b"{}", {"file": work}, seconds=0.0)
    work.unlink()
    return True


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    sys.exit(main())
