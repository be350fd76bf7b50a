"""The key that orders are signed with, so that devices do nothing for anybody else."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from device_profiles.errors import FormatError

_REMEDY = "'profl-server federation up' makes one"


class OrderKey:
    """ECDSA on P-256 with SHA-256; signatures are DER."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path) -> OrderKey:
        """From a PEM file without a password; raises FormatError naming it."""
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise FormatError(f"{path}: {error.strerror or error}", remedy=_REMEDY) from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise FormatError(f"{path}: is no private key in PEM without a password", remedy=_REMEDY) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise FormatError(f"{path}: is no key of the curve P-256", remedy=_REMEDY)
        return cls(key)

    def sign(self, document: bytes) -> bytes:
        """The signature of a document's bytes."""
        return self._key.sign(document, ec.ECDSA(SHA256()))
