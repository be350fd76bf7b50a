"""Makes a key, or reads one that only `cryptography` reads: a process of its own, whose memory goes with it.

    python -m edge_runtime.device.fleet_api.key_process        prints a new P-384 key in PEM
    python -m edge_runtime.device.fleet_api.key_process read   prints in PEM the OpenSSH key on standard input

A key that cannot be read ends it with status 2 and one line on standard error.
"""

from __future__ import annotations

import subprocess
import sys

from device_profiles.errors import FormatError, UsageError
from device_profiles.extras import extra_remedy


def new_key() -> bytes:
    """A P-384 key as PKCS #8 in PEM. Raises UsageError where `cryptography` is missing."""
    return _ask(b"")


def read_openssh(data: bytes) -> bytes:
    """The same key as PKCS #8 in PEM. Raises FormatError, or UsageError where `cryptography` is missing."""
    return _ask(data, "read")


def _ask(data: bytes, *arguments: str) -> bytes:
    command = [sys.executable, "-m", __name__, *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if lines and "No module named 'cryptography'" in lines[-1]:
        raise UsageError("the package cryptography is missing", remedy=extra_remedy("join"))
    raise FormatError(lines[-1] if lines else "cannot be read")


def main() -> int:
    """What the process does."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if sys.argv[1:] != ["read"]:
        key = ec.generate_private_key(ec.SECP384R1())
    else:
        try:
            read = serialization.load_ssh_private_key(sys.stdin.buffer.read(), None)
        except Exception as error:  # whatever is wrong with a key is one line for its owner
            print(f"cannot be read: {error}", file=sys.stderr)
            return 2
        if not isinstance(read, ec.EllipticCurvePrivateKey):
            print("is no ECDSA key", file=sys.stderr)
            return 2
        key = read
    form, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    sys.stdout.buffer.write(key.private_bytes(serialization.Encoding.PEM, form, bare))
    return 0


if __name__ == "__main__":
    sys.exit(main())
