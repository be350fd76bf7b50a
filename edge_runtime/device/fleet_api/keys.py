"""The key of a device, with which it signs its requests, and the key of the federation's server.

Both are ECDSA on P-256 or P-384, in PEM; the key of a device may be in OpenSSH's format too. libcrypto of Python's own
ssl module signs and verifies (`libcrypto.py`), `cryptography` where that is not to be had.
"""

from __future__ import annotations

import binascii
import os
import stat
from base64 import b64encode
from typing import Protocol

from device_profiles.errors import FormatError, UsageError
from device_profiles.outputs import move_over, sync, temporary_name, write_all
from edge_runtime.device.fleet_api.key_process import new_key, read_openssh
from edge_runtime.device.fleet_api.libcrypto import Libcrypto

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

_MAX_KEY_BYTES = 1 << 16
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_PRIVATE_LABELS = ("PRIVATE KEY", "EC PRIVATE KEY")
_PUBLIC_LABEL = "PUBLIC KEY"
_CURVES = {
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"): "nistp256",
    bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"): "nistp384",
}
"""What stands in front of the point in a SubjectPublicKeyInfo, by the name of its curve in OpenSSH."""


class _Signer(Protocol):
    def sign(self, data: bytes) -> bytes: ...
    def public_der(self) -> bytes: ...


class _Verifier(Protocol):
    def verify(self, signature: bytes, data: bytes) -> bool: ...


class NodeKey:
    """The private key of a device.

    Attributes:
        public_pem: its public key as a SuperLink knows it, byte for byte.
    """

    def __init__(self, signer: _Signer) -> None:
        self._signer = signer
        der = signer.public_der()
        self._curve, self._point = _curve_and_point(der)
        self.public_pem = _pem(der)

    @classmethod
    def load(cls, path: Path) -> NodeKey:
        """Raises UsageError where the file is missing or open to others, FormatError where it holds no such key."""
        data = _read_private(path)
        try:
            der = _der(read_openssh(data) if data.lstrip().startswith(_OPENSSH) else data, _PRIVATE_LABELS)
            return cls(_signer(der))
        except FormatError as error:
            raise error.at(str(path)) from None

    @classmethod
    def create(cls, path: Path) -> NodeKey:
        """A new P-384 key in a file that nobody else may read. Raises UsageError where there is a file already."""
        if os.path.lexists(path):
            raise UsageError(f"{path}: is there already; remove it, or choose another name for the new key")
        temporary = temporary_name(str(path))
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write_all(file, new_key())
                sync(file)
            finally:
                os.close(file)
            move_over(temporary, str(path))
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from None
        return cls.load(path)

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        return self._signer.sign(data)

    @property
    def public_line(self) -> str:
        """Its public key in OpenSSH's format, which `flwr supernode register` reads."""
        name = f"ecdsa-sha2-{self._curve}"
        parts = (name.encode(), self._curve.encode(), self._point)
        blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return f"{name} {b64encode(blob).decode()}"


class ServerKey:
    """The public key with which the federation's server signs its orders."""

    def __init__(self, pem: bytes) -> None:
        """Raises FormatError."""
        der = _der(pem, (_PUBLIC_LABEL,))
        _curve_and_point(der)
        self._verifier = _verifier(der)

    def signed(self, data: bytes, signature: bytes | None) -> bool:
        """Whether the server signed these bytes."""
        return signature is not None and self._verifier.verify(signature, data)


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: the key cannot be read: {error.strerror or error}") from None
    if stat.S_IMODE(mode) & 0o077:
        found = f"{stat.S_IMODE(mode):04o}"
        raise UsageError(f"{path}: others may read this private key (mode {found}); run chmod 600 {path}")
    return data


def _der(pem: bytes, labels: tuple[str, ...]) -> bytes:
    if len(pem) > _MAX_KEY_BYTES:
        raise FormatError(f"is larger than {_MAX_KEY_BYTES} bytes, and no key")
    for label in labels:
        _, start, rest = pem.partition(f"-----BEGIN {label}-----".encode())
        body, end, _ = rest.partition(f"-----END {label}-----".encode())
        if start and end:
            try:
                return binascii.a2b_base64(body)
            except binascii.Error:
                raise FormatError("is damaged: not base64") from None
    if b"ENCRYPTED" in pem:
        raise FormatError("is encrypted; give a key without a passphrase, in a file that only its owner may read")
    raise FormatError(f"holds no {labels[0].lower()} in PEM")


def _pem(der: bytes) -> bytes:
    text = b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""]).encode()


def _curve_and_point(der: bytes) -> tuple[str, bytes]:
    for start, curve in _CURVES.items():
        if der.startswith(start) and der[len(start) : len(start) + 1] == b"\x04":
            return curve, der[len(start) :]
    raise FormatError("is no ECDSA key on P-256 or P-384")


def _signer(der: bytes) -> _Signer:
    library = Libcrypto.loaded()
    if library is not None:
        return library.private_key(der)
    from edge_runtime.device.fleet_api.cryptography_keys import CryptographySigner

    return CryptographySigner(der)


def _verifier(der: bytes) -> _Verifier:
    library = Libcrypto.loaded()
    if library is not None:
        return library.public_key(der)
    from edge_runtime.device.fleet_api.cryptography_keys import CryptographyVerifier

    return CryptographyVerifier(der)
