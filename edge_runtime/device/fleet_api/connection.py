"""One connection to a SuperLink: signed requests over HTTPS, one after the other, and answers that can be streamed.

A connection that broke is opened again by the next request. What is raised is an error of `errors.py`; what may pass
with time is a LinkDownError.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from base64 import b64encode
from contextlib import contextmanager
from email.utils import mktime_tz, parsedate_tz

from device_profiles.errors import FormatError
from edge_runtime.device.fleet_api.errors import (
    CertificateError,
    ClockError,
    KeyRefusedError,
    LinkDownError,
    LinkError,
    ProtocolError,
    RunEndedError,
)
from edge_runtime.device.fleet_api.wire import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edge_runtime.device.fleet_api.address import Address
    from edge_runtime.device.fleet_api.keys import NodeKey
    from edge_runtime.device.fleet_api.wire import Wire, WireMessage

MAX_ANSWER_BYTES = 4 << 20
_MAX_ERROR_BYTES = 1 << 16
_MOST_SAID = 200
_KEEP_ALIVE_SECONDS = 4.0
"""Less than the five seconds after which a SuperLink closes a connection that nobody uses."""
_AHEAD_SECONDS, _BEHIND_SECONDS = 5, 305
"""By how much a signature may be newer or older than the SuperLink's clock (`node_auth.py` of flwr)."""
_RUN_STATUS_NOT_ALLOWED, _ACTIVATION_FAILED = 2007, 2004
"""Of flwr's `ApiErrorCode`."""
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)


class ActivationRefusedError(LinkError):
    """The SuperLink knows no such key, or the node is online already."""


class Connection:
    """Requests of one key to one address. It belongs to one thread."""

    def __init__(
        self, address: Address, context: ssl.SSLContext | None, key: NodeKey, *, ca: Path | None, timeout: float
    ) -> None:
        self._address = address
        self._context = context
        self._key = key
        self._public_key = b64encode(key.public_pem).decode()
        self._ca = ca
        self._timeout = timeout
        self._open: http.client.HTTPConnection | None = None
        self._used = 0.0

    def close(self) -> None:
        """The next request opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def ask(self, path: str, request: WireMessage, answer: type[Wire]) -> Wire:
        """A request whose answer is small."""
        body = encode(request)
        return self.send(path, (body,), len(body), answer)

    def send(self, path: str, body: Iterable[bytes], size: int, answer: type[Wire]) -> Wire:
        """A request of `size` bytes that come one after the other, whose answer is small."""
        with self.exchange(path, body, size) as response:
            data = _read_at_most(response, MAX_ANSWER_BYTES)
        try:
            return decode(answer, data)
        except FormatError as error:
            raise ProtocolError(
                f"the SuperLink {self._address} answers {path} with what cannot be read: {error}"
            ) from None

    @contextmanager
    def exchange(self, path: str, body: Iterable[bytes], size: int) -> Iterator[http.client.HTTPResponse]:
        """Send a body of `size` bytes; the answer's is read in the block, and has ended where the block ends."""
        try:
            response = self._begin(path, body, size)
            if response.status != 200:
                raise self._refusal(path, response)
            yield response
            if not response.isclosed() and response.read(1):
                self.close()  # nobody wanted the rest
        except (OSError, http.client.HTTPException, ValueError) as error:  # http.client raises all three
            self.close()
            raise self._broken(error) from None
        except BaseException:
            self.close()
            raise
        self._used = time.monotonic()

    def _begin(self, path: str, body: Iterable[bytes], size: int) -> http.client.HTTPResponse:
        if self._open is None or time.monotonic() - self._used > _KEEP_ALIVE_SECONDS:
            self.close()
            host, port = self._address
            if self._context is None:
                self._open = http.client.HTTPConnection(host, port, timeout=self._timeout)
            else:
                self._open = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        headers = {**self._signed(), "content-length": str(size)}
        self._open.request("POST", f"/v1/fleet/{path}", iter(body), headers)
        return self._open.getresponse()

    def _signed(self) -> dict[str, str]:
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}+00:00"
        return {
            "content-type": "application/protobuf",
            "accept": "application/protobuf",
            "flwr-timestamp": stamp,
            "flwr-public-key": self._public_key,
            "flwr-signature": b64encode(self._key.sign(stamp.encode())).decode(),
        }

    def _refusal(self, path: str, response: http.client.HTTPResponse) -> LinkError:
        data = response.read(_MAX_ERROR_BYTES)
        code, said = _said(data)
        if response.status == 401:
            return _clock_error(response.headers.get("date")) or KeyRefusedError(
                f"the SuperLink {self._address} does not know the key of this device (any more)",
                remedy="ask whoever runs it to add this device",
            )
        if code == _RUN_STATUS_NOT_ALLOWED:
            return RunEndedError("the run has ended; nobody waits for this answer")
        if code == _ACTIVATION_FAILED:
            return ActivationRefusedError(said)
        if response.status in _MAY_PASS:
            return LinkDownError(f"the SuperLink {self._address} answers {path} with {response.status}: {said}")
        return ProtocolError(
            f"the SuperLink {self._address} answers {path} with {response.status}: {said}",
            remedy="this device speaks the Fleet API of Flower 1.41",
        )

    def _broken(self, error: Exception) -> LinkError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._certificate_error(error)
        if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return CertificateError(f"{self._address} does not speak TLS; is that the port of a SuperLink with TLS?")
        reason = getattr(error, "strerror", None) or _one_line(str(error)) or type(error).__name__
        return LinkDownError(f"the SuperLink {self._address} cannot be reached: {reason}")

    def _certificate_error(self, error: ssl.SSLCertVerificationError) -> LinkError:
        said = error.verify_message or error.reason
        if said in ("certificate is not yet valid", "certificate has expired"):
            clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            return CertificateError(
                f"the SuperLink {self._address}: its {said} by the clock of this device, which says {clock}",
                remedy="set the clock, or ask whoever runs the SuperLink for a new certificate",
            )
        authority = "the system's authorities" if self._ca is None else str(self._ca)
        return CertificateError(
            f"the SuperLink {self._address} does not prove itself by {authority}: {said}",
            remedy="give the ca.crt of this federation, and a host that the SuperLink's certificate names",
        )


def _read_at_most(response: http.client.HTTPResponse, limit: int) -> bytes:
    if (response.length or 0) > limit:
        raise ProtocolError(f"the SuperLink answers with {response.length} bytes, where {limit} are the most")
    data = response.read(limit + 1)
    if len(data) > limit:
        raise ProtocolError(f"the SuperLink answers with more than {limit} bytes")
    if response.length:
        raise http.client.IncompleteRead(data, response.length)
    return data


def _said(data: bytes) -> tuple[int | None, str]:
    """flwr's code of an error, and its text."""
    try:
        said = json.loads(data)
        return said.get("code"), _one_line(str(said["detail"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, _one_line(data.decode(errors="replace"))


def _one_line(text: str) -> str:
    """What somebody else said, for a log: short, and without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text[:_MOST_SAID].split()))


def _clock_error(date: str | None) -> ClockError | None:
    parsed = None if date is None else parsedate_tz(date)
    if parsed is None:
        return None
    ahead = time.time() - mktime_tz(parsed)  # the header has whole seconds: up to one more than it is
    if -_BEHIND_SECONDS + 1 < ahead < _AHEAD_SECONDS:
        return None
    which = "ahead of" if ahead > 0 else "behind"
    return ClockError(
        f"the clock of this device is {abs(ahead):.0f} seconds {which} the SuperLink's, which refuses its signatures",
        remedy="set it, for example with timedatectl set-ntp true",
    )
