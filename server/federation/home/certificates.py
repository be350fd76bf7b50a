"""Certificates of a federation: its own authority, which devices trust alone, and the server's, which it signs."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from device_profiles.errors import FormatError
from server.federation.home.folder import FederationFolder, read_private, write_private
from server.federation.home.keys import load_key, new_key, private_pem

ALWAYS = ("localhost", "127.0.0.1")
"""How the processes of the server reach each other."""
_AUTHORITY_AGE = timedelta(days=3650)
_SERVER_AGE = timedelta(days=730)
_RENEWED_BEFORE = timedelta(days=60)
_CLOCKS = timedelta(days=1)
"""Devices whose clocks are behind accept a new certificate as well."""


def authority_file(folder: FederationFolder) -> Path:
    """The authority's certificate, which is all that devices need to know the server by."""
    return folder.keys / "ca.pem"


def server_files(folder: FederationFolder) -> tuple[Path, Path]:
    """The server's certificate and its key."""
    return folder.keys / "server.pem", folder.keys / "server.key"


def make_certificates(folder: FederationFolder, names: Sequence[str], *, now: datetime | None = None) -> bool:
    """Make what is missing, and the server's certificate anew where its names differ or its end is near.

    Returns whether the server's certificate is a new one. Raises FormatError naming the file where the authority's can
    no longer be used.
    """
    now = datetime.now(UTC) if now is None else now
    authority, key = _authority(folder, now)
    wanted = sorted({*ALWAYS, *names})
    certificate_file, key_file = server_files(folder)
    if certificate_file.exists() and key_file.exists() and _is_good(certificate_file, authority, wanted, now):
        return False
    own = new_key()
    signed = _signed(own, authority, key, wanted, now)
    write_private(key_file, private_pem(own))
    write_private(certificate_file, signed.public_bytes(Encoding.PEM))
    return True


def _authority(folder: FederationFolder, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path, key_path = authority_file(folder), folder.keys / "ca.key"
    if not path.exists():
        key = new_key()
        write_private(key_path, private_pem(key))
        write_private(path, _self_signed(key, now).public_bytes(Encoding.PEM))
    certificate = _load(path)
    if certificate.not_valid_after_utc < now + _RENEWED_BEFORE:
        raise FormatError(
            f"{path}: ends {certificate.not_valid_after_utc:%Y-%m-%d}",
            remedy="make a new federation in another folder, and invite its devices again",
        )
    return certificate, load_key(key_path)


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _name("profl federation")
    public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(now + _AUTHORITY_AGE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(public, critical=False)
        .sign(key, hashes.SHA256())
    )


def _signed(
    own: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    now: datetime,
) -> x509.Certificate:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    end = min(now + _SERVER_AGE, authority.not_valid_after_utc)
    return (
        x509.CertificateBuilder(
            authority.subject, _name("profl federation server"), own.public_key(), x509.random_serial_number()
        )
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(issuer, critical=False)
        .sign(key, hashes.SHA256())
    )


def _is_good(path: Path, authority: x509.Certificate, names: Sequence[str], now: datetime) -> bool:
    certificate = _load(path)
    try:
        certificate.verify_directly_issued_by(authority)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:
        return False  # of another authority, or none of ours: it is made anew
    return certificate.not_valid_after_utc > now + _RENEWED_BEFORE and set(found) == set(map(_alternative, names))


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_private(path))
    except ValueError:
        raise FormatError(f"{path}: is not a certificate; restore it from a copy") from None


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
