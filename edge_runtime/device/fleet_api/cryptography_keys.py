"""The same keys through the package `cryptography`, where Python's own libcrypto cannot be used."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_profiles.errors import FormatError


class CryptographySigner:
    """Signs."""

    def __init__(self, der: bytes) -> None:
        """Raises FormatError."""
        try:
            key = serialization.load_der_private_key(der, None)
        except (ValueError, TypeError):
            raise FormatError("holds no key that OpenSSL reads") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise FormatError("is no ECDSA key on P-256 or P-384")
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def public_der(self) -> bytes:
        """Its public key as a SubjectPublicKeyInfo."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.DER, form)


class CryptographyVerifier:
    """Verifies."""

    def __init__(self, der: bytes) -> None:
        """Raises FormatError."""
        try:
            key = serialization.load_der_public_key(der)
        except ValueError:
            raise FormatError("holds no key that OpenSSL reads") from None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise FormatError("is no ECDSA key on P-256 or P-384")
        self._key = key

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether this is the key's signature: ECDSA with SHA-256, DER."""
        try:
            self._key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True
