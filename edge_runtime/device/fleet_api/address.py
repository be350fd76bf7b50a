"""Where a SuperLink listens, and who is believed to be it."""

from __future__ import annotations

import ipaddress
import ssl
from typing import NamedTuple

from device_profiles.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


class Address(NamedTuple):
    """`host:port`; an IPv6 address is in brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises UsageError."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host or "/" in host:
            host = ""
        if not colon or not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            raise UsageError(f"{text}: is no address of a SuperLink; write it as HOST:PORT, such as fleet.local:9092")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside of this machine can be there."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def tls_context(address: Address, ca: Path | None, *, insecure: bool) -> ssl.SSLContext | None:
    """How the SuperLink is verified; None is plain HTTP.

    Without `ca`, certificate authorities of the system are believed, which costs 11 MB. Raises UsageError.
    """
    if insecure:
        if not address.is_loopback:
            raise UsageError(
                f"{address}: is another machine, and only this machine's own SuperLink can be joined without TLS; "
                "join it with the certificate of its authority"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError:
        raise UsageError(f"{ca}: holds no certificate in PEM; give the federation's ca.crt") from None
    except OSError as error:
        raise UsageError(f"{ca}: the certificate cannot be read: {error.strerror or error}") from None
    return context
