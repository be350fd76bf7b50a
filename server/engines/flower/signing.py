"""The key that orders are signed with, so that devices do nothing for anybody else."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from server.federation.home.keys import load_key


class OrderKey:
    """ECDSA with SHA-256; signatures are DER."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path) -> OrderKey:
        """From a PEM file; raises FormatError naming it."""
        return cls(load_key(path))

    def sign(self, document: bytes) -> bytes:
        """The signature of a document's bytes."""
        return self._key.sign(document, ec.ECDSA(SHA256()))
