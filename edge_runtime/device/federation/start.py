"""`python -I start.py FD`: the process of the client; what it is to do is read from the open file FD.

The command line has become this process: click, and all that the options needed, would stay resident for as long as the
device is part of the federation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3)))

import signal
import threading
from collections.abc import Callable

import msgspec

from device_profiles import streams
from device_profiles.errors import ProflError
from edge_runtime.device.federation.client import Client
from edge_runtime.device.federation.courier import Courier
from edge_runtime.device.federation.journal import Journal
from edge_runtime.device.federation.opening import open_device
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.federation.state import StateFolder
from edge_runtime.device.fleet_api.errors import LinkStoppedError
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from edge_runtime.device.limits.own_group import OwnGroup
from edge_runtime.device.limits.priority import be_nice

INTERRUPTED_STATUS = 130
_ENDING = (signal.SIGTERM, signal.SIGINT)
LINK_SECONDS = 20.0
"""For one answer of the SuperLink: a training is not watched meanwhile."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is started with.

    Attributes:
        state: its folder.
        once: end after one training order.
        root: where `/proc` and `/sys` lie; another place in tests.
        ask_within: most seconds between two questions for messages, in tests.
    """

    settings: Settings
    state: str
    release: str
    once: bool = False
    as_json: bool = False
    root: str = "/"
    ask_within: float | None = None


class _Stopped(KeyboardInterrupt):
    """SIGTERM or Ctrl-C has come."""


class _Signals:
    """Ends the client at the first signal: by an exception where it is, and by `stop` where Python swallows that."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        for number in _ENDING:
            signal.signal(number, self._come)

    def check(self) -> None:
        """Raise _Stopped where a signal has come."""
        if self.stop.is_set():
            raise _Stopped

    def _come(self, number: int, frame: object) -> None:
        for again in _ENDING:
            signal.signal(again, signal.SIG_IGN)
        self.stop.set()
        raise _Stopped


CourierOf = Callable[[Start, StateFolder, Journal, threading.Event], Courier]


def serve(start: Start, courier_of: CourierOf) -> int:
    """Be the client until a signal comes; returns the exit status. Raises ProflError."""
    be_nice(start.settings.niceness)
    journal = Journal(as_json=start.as_json)
    state = StateFolder(Path(start.state))
    signals = _Signals()
    try:
        with state.held():
            root, group = Path(start.root), OwnGroup(start.settings.limit_bytes)
            device = open_device(start.settings, state.path, journal, release=start.release, root=root, group=group)
            courier = courier_of(start, state, journal, signals.stop)
            group.enter()
            try:
                client = Client(
                    device,
                    courier,
                    receiver=start.settings.address,
                    once=start.once,
                    ask_within=start.ask_within,
                )
                client.run(signals.check)
            finally:
                group.leave()
    except (_Stopped, LinkStoppedError):
        journal.say("stopped", "stopped; the same command goes on")
        return INTERRUPTED_STATUS
    return 0


def link_of(start: Start, state: StateFolder, journal: Journal, stop: threading.Event) -> Courier:
    """The link to the SuperLink of the settings. Raises ProflError."""
    settings = start.settings
    return Link(
        settings.address,
        ca=state.ca if state.ca.exists() else None,
        key=NodeKey.load(state.key),
        node_file=state.node,
        insecure=settings.insecure,
        timeout=LINK_SECONDS,
        stop=stop,
        notice=lambda line: journal.say("link", line),
    )


def main(file: int, courier_of: CourierOf = link_of) -> int:
    """Do what the open `file` says, as a process of its own; returns the exit status."""
    streams.open_closed_streams()
    with open(file, "rb") as source:
        start = msgspec.json.decode(source.read(), type=Start)
    try:
        status = serve(start, courier_of)
    except ProflError as error:
        status = _fail(str(error), error.exit_status)
    except OSError as error:
        status = streams.ended_by(error, lambda line: _fail(line, 1))
    return streams.flushed(status, lambda line: _fail(line, 1))


def _fail(message: str, status: int) -> int:
    print(f"profl-edge: error: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
