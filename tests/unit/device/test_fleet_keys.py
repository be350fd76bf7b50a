"""Keys of devices: files, formats, and signatures that `cryptography` agrees with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed")
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from device_profiles.errors import FormatError, UsageError
from edge_runtime.device.fleet_api import keys, link
from edge_runtime.device.fleet_api.keys import NodeKey, ServerKey
from edge_runtime.device.fleet_api.libcrypto import Libcrypto

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
BARE = serialization.NoEncryption()


@pytest.fixture(params=["libcrypto", "cryptography"])
def _backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "cryptography":
        monkeypatch.setattr(Libcrypto, "loaded", staticmethod(lambda: None))
    elif Libcrypto.loaded() is None:
        pytest.skip("this Python has no libcrypto of OpenSSL 3 that it shares")


def _write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL", "OpenSSH"])
def test_a_key_signs_and_says_its_public_half(tmp_path: Path, curve: ec.EllipticCurve, form: str) -> None:
    theirs = ec.generate_private_key(curve)
    data = theirs.private_bytes(PEM, getattr(serialization.PrivateFormat, form), BARE)
    key = NodeKey.load(_write(tmp_path / "key", data))
    public = theirs.public_key()
    public.verify(key.sign(b"12:00"), b"12:00", ec.ECDSA(hashes.SHA256()))
    assert key.public_pem == public.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert key.public_line == line.decode()
    server = ServerKey(key.public_pem)
    signature = theirs.sign(b"order", ec.ECDSA(hashes.SHA256()))
    assert server.signed(b"order", signature)
    assert not server.signed(b"other", signature)
    assert not server.signed(b"order", signature[:-1])
    assert not server.signed(b"order", b"")
    assert not server.signed(b"order", None)


def test_a_new_key_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = NodeKey.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
    assert NodeKey.load(path).public_pem == key.public_pem
    with pytest.raises(UsageError, match="is there already"):
        NodeKey.create(path)


def test_a_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "key"
    NodeKey.create(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match=r"mode 0640.*chmod 600"):
        NodeKey.load(path)


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no private key"),
        (b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----", "no key that OpenSSL reads|not base64"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "no key that OpenSSL reads"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "encrypted"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "cannot be read"),
        (ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, BARE), "no ECDSA key|no public part"),
        (ec.generate_private_key(ec.SECP521R1()).private_bytes(PEM, PKCS8, BARE), "no ECDSA key"),
        (b"x" * 70_000, "larger"),
    ],
)
def test_what_is_no_key_is_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = _write(tmp_path / "key", data)
    with pytest.raises(FormatError, match=said) as caught:
        NodeKey.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the key cannot be read"):
        NodeKey.load(tmp_path / "none")


def test_a_private_key_is_no_key_of_the_server() -> None:
    with pytest.raises(FormatError):
        ServerKey(ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, BARE))


def test_a_link_imports_neither_cryptography_nor_flwr_nor_numpy(tmp_path: Path) -> None:
    if Libcrypto.loaded() is None:
        pytest.skip("this Python has no libcrypto of OpenSSL 3 that it shares")
    path = tmp_path / "key"
    NodeKey.create(path)
    code = (
        f"import sys; from pathlib import Path; from {keys.__name__} import NodeKey; import {link.__name__}; "
        f"NodeKey.load(Path(sys.argv[1])).sign(b'x'); "
        "assert not {'cryptography', 'flwr', 'google.protobuf', 'numpy', 'click'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
