"""ECDSA through the libcrypto that Python's own ssl module has loaded, for want of 9 MB.

The wheel of `cryptography` brings an OpenSSL of its own: 8.8 MB resident for one signature in a request. Here are a few
calls of OpenSSL 3's stable interface to the library that is in memory already, for 0.7 MB. `Libcrypto.loaded()` is None
where Python has another one or none (a static build), and `keys.py` falls back to `cryptography`.
"""

from __future__ import annotations

import _hashlib  # noqa: F401  # it loads libcrypto
import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_size_t, c_ubyte, c_ulong, c_void_p
from functools import cache

from device_profiles.errors import FormatError

_MAPS = "/proc/self/maps"
_OPENSSL_3 = 0x30000000
_MAX_SIGNATURE_BYTES = 256
_FUNCTIONS: dict[str, tuple[object, tuple[object, ...]]] = {
    "OpenSSL_version_num": (c_ulong, ()),
    "d2i_AutoPrivateKey": (c_void_p, (c_void_p, POINTER(c_char_p), c_long)),
    "d2i_PUBKEY": (c_void_p, (c_void_p, POINTER(c_char_p), c_long)),
    "i2d_PUBKEY": (c_int, (c_void_p, POINTER(c_void_p))),
    "EVP_PKEY_free": (None, (c_void_p,)),
    "EVP_MD_CTX_new": (c_void_p, ()),
    "EVP_MD_CTX_free": (None, (c_void_p,)),
    "EVP_sha256": (c_void_p, ()),
    "EVP_DigestSignInit": (c_int, (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)),
    "EVP_DigestSign": (c_int, (c_void_p, c_void_p, POINTER(c_size_t), c_char_p, c_size_t)),
    "EVP_DigestVerifyInit": (c_int, (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)),
    "EVP_DigestVerify": (c_int, (c_void_p, c_char_p, c_size_t, c_char_p, c_size_t)),
    "ERR_clear_error": (None, ()),
}


class Libcrypto:
    """The functions, with their types."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        if self._library.OpenSSL_version_num() < _OPENSSL_3:
            raise OSError("older than OpenSSL 3")

    @staticmethod
    @cache
    def loaded() -> Libcrypto | None:
        """The libcrypto of this process, None where it has none of OpenSSL 3."""
        try:
            with open(_MAPS, encoding="utf-8", errors="replace") as maps:
                paths = {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/libcrypto.so" in line}
            return Libcrypto(paths.pop()) if len(paths) == 1 else None
        except (OSError, AttributeError):
            return None

    def private_key(self, der: bytes) -> PrivateKey:
        """Of PKCS #8 or SEC 1. Raises FormatError."""
        return PrivateKey(self._library, self._read(self._library.d2i_AutoPrivateKey, der))

    def public_key(self, der: bytes) -> PublicKey:
        """Of a SubjectPublicKeyInfo. Raises FormatError."""
        return PublicKey(self._library, self._read(self._library.d2i_PUBKEY, der))

    def _read(self, function: ctypes._NamedFuncPointer, der: bytes) -> int:
        start = c_char_p(der)
        key = function(None, byref(start), len(der))
        if not key:
            self._library.ERR_clear_error()
            raise FormatError("holds no key that OpenSSL reads")
        return int(key)


class _Key:
    """A key in libcrypto's memory."""

    def __init__(self, library: ctypes.CDLL, key: int) -> None:
        self._library = library
        self._key = key

    def __del__(self) -> None:
        self._library.EVP_PKEY_free(self._key)


class PrivateKey(_Key):
    """Signs."""

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        signature = (c_ubyte * _MAX_SIGNATURE_BYTES)()
        size = c_size_t(_MAX_SIGNATURE_BYTES)
        context = self._library.EVP_MD_CTX_new()
        try:
            ready = self._library.EVP_DigestSignInit(context, None, self._library.EVP_sha256(), None, self._key) == 1
            if not ready or self._library.EVP_DigestSign(context, signature, byref(size), data, len(data)) != 1:
                self._library.ERR_clear_error()
                raise FormatError("the key cannot sign")
        finally:
            self._library.EVP_MD_CTX_free(context)
        return bytes(signature[: size.value])

    def public_der(self) -> bytes:
        """Its public key as a SubjectPublicKeyInfo."""
        size = self._library.i2d_PUBKEY(self._key, None)
        if size <= 0:
            self._library.ERR_clear_error()
            raise FormatError("the key has no public part")
        der = (c_ubyte * size)()
        self._library.i2d_PUBKEY(self._key, byref(c_void_p(ctypes.addressof(der))))
        return bytes(der)


class PublicKey(_Key):
    """Verifies."""

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether this is the key's signature: ECDSA with SHA-256, DER."""
        context = self._library.EVP_MD_CTX_new()
        try:
            ready = self._library.EVP_DigestVerifyInit(context, None, self._library.EVP_sha256(), None, self._key) == 1
            size = len(signature)
            good = ready and self._library.EVP_DigestVerify(context, signature, size, data, len(data)) == 1
            self._library.ERR_clear_error()
            return bool(good)
        finally:
            self._library.EVP_MD_CTX_free(context)
