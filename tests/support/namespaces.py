"""Hosts that know each other over a network alone: Linux network namespaces, each with a cable to the server's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SERVER_ADDRESS = "10.77.1.1"


class Hosts:
    """`server`, and hosts that reach `SERVER_ADDRESS` and nothing else."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = ["server", *names]

    def inside(self, name: str) -> list[str]:
        """What stands before a command on this host."""
        return ["ip", "netns", "exec", _space(name)]

    def connect(self) -> None:
        """Make the hosts and their cables. Raises OSError or CalledProcessError where this may not be done."""
        for name in self._names:
            _ip("netns", "add", _space(name))
            _ip("-n", _space(name), "link", "set", "lo", "up")
        for number, name in enumerate(self._names[1:], start=1):
            near, far = (_space("server"), f"to-{name}"), (_space(name), "eth0")
            _ip("link", "add", near[1], "netns", near[0], "type", "veth", "peer", "name", far[1], "netns", far[0])
            for place, (space, device) in enumerate((near, far), start=1):
                _ip("-n", space, "address", "add", f"10.77.{number}.{place}/24", "dev", device)
                _ip("-n", space, "link", "set", device, "up")
            if number > 1:
                _ip("-n", far[0], "route", "add", SERVER_ADDRESS, "via", f"10.77.{number}.1")

    def set_cable(self, name: str, state: str) -> None:
        """Plug a host's cable in (`up`) or out (`down`)."""
        _ip("-n", _space("server"), "link", "set", f"to-{name}", state)

    def remove(self) -> None:
        """Take everything away; what runs in the hosts must have ended."""
        for name in self._names:
            subprocess.run(["ip", "netns", "del", _space(name)], capture_output=True, check=False)


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Hosts for the time of a test."""
    made = Hosts(names)
    try:
        made.connect()
        yield made
    finally:
        made.remove()


def may_make_hosts() -> bool:
    """Whether this process may make network namespaces and cables between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    try:
        with hosts("trial"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _space(name: str) -> str:
    return f"profl-{os.getpid()}-{name}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
