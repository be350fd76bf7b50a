"""Where a federation listens, and what devices call it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence

import psutil

from device_profiles.errors import UsageError

EVERYWHERE = ("0.0.0.0", "::")
_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?", re.ASCII)
_BACKLOG = 2048


def check_hosts(hosts: Sequence[str]) -> None:
    """Raise UsageError naming the first of `hosts` that is neither an address nor a name of a host."""
    for host in hosts:
        if _address(host) is None and not (_NAME.fullmatch(host) and len(host) <= 253):
            raise UsageError(f"--host {host!r}: is neither an address nor a name; write 192.168.1.5 or server.local")


def certificate_names(hosts: Sequence[str]) -> list[str]:
    """What the server's certificate has to name: `hosts`, and all addresses of this machine for one that means all."""
    names = [host for host in hosts if host not in EVERYWHERE]
    if len(names) < len(hosts):
        names += [*own_addresses(), socket.gethostname()]
    return [name for name in dict.fromkeys(names) if _address(name) is not None or _NAME.fullmatch(name)]


def public_address(hosts: Sequence[str], port: int) -> str:
    """`host:port` as devices dial it: the first of `hosts`, or this machine's first address where that means all."""
    host = hosts[0]
    if host in EVERYWHERE:
        host = next(iter(own_addresses()), "127.0.0.1")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def moved_note(before: str, now: str) -> str | None:
    """What the owner of devices that were told `before` has to do; None where nothing changed, or nobody was told."""
    if before in ("", now):
        return None
    return f"devices that joined call {before}; the federation is at {now} now: on each, run profl-edge join {now}"


def own_addresses() -> list[str]:
    """Addresses of this machine that other machines may reach, those of version 4 first."""
    found = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries]
    addresses = [address for text in found if (address := _address(text)) is not None]
    outside = [a for a in addresses if not (a.is_loopback or a.is_link_local or a.is_unspecified)]
    return [str(address) for address in sorted(set(outside), key=lambda a: (a.version, int(a)))]


def is_loopback(hosts: Sequence[str]) -> bool:
    """Whether only this machine can reach all of them."""
    return all(host == "localhost" or ((a := _address(host)) is not None and a.is_loopback) for host in hosts)


def listen(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets that listen at `port`: at every address of `hosts`, or everywhere where one of them is a name.

    Port 0 is a free one, the same for all. Raises UsageError naming the host or the port.
    """
    addresses = ["127.0.0.1" if host == "localhost" else host for host in hosts]
    if any(_address(address) is None for address in addresses):
        addresses = [EVERYWHERE[0]]
    if any(address in EVERYWHERE for address in addresses):
        addresses = [address for address in addresses if address in EVERYWHERE]
    sockets: list[socket.socket] = []
    try:
        for address in dict.fromkeys(addresses):
            sockets.append(_listening(address, port))
            port = sockets[-1].getsockname()[1]
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _listening(address: str, port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        own = ", ".join(own_addresses()) or "none"
        raise UsageError(
            f"--host {address} --port {port}: cannot listen there: {error.strerror}",
            remedy=f"choose another port, or one of this machine's addresses: {own}, or 0.0.0.0 for all",
        ) from None
    return opened


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
