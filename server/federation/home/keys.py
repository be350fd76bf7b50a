"""Secrets of a federation's server: the key that signs orders, and what its own processes show to each other."""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_profiles.errors import FormatError
from server.federation.home.folder import FederationFolder, read_private, write_private

_SECRET_BYTES = 32


def order_key_file(folder: FederationFolder) -> Path:
    """The key that every order of the server is signed with (ECDSA, P-256, PEM), which is made where there is none."""
    path = folder.keys / "orders.key"
    if not path.exists():
        write_private(path, private_pem(new_key()))
    return path


def control_token(folder: FederationFolder) -> str:
    """What whoever starts runs or registers devices shows to the SuperLink; made where there is none."""
    return _secret(folder.keys / "control.token").decode()


def launcher_secret(folder: FederationFolder) -> bytes:
    """What the process that starts server apps shows to the SuperLink; made where there is none."""
    return _secret(folder.keys / "launcher.secret")


def _secret(path: Path) -> bytes:
    if not path.exists():
        write_private(path, secrets.token_hex(_SECRET_BYTES).encode())
    return read_private(path)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new key of the curve P-256, which Flower takes and whose text is short."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PKCS 8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def openssh(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as stock SuperNodes read it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half of a key, as Flower registers it."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key of a file. Raises FormatError naming it."""
    try:
        key = serialization.load_pem_private_key(read_private(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FormatError(f"{path}: is not a private key on an elliptic curve; restore it from a copy")
    return key
