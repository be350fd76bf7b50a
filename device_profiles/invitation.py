"""An invitation: everything that a device needs to join a federation, as one word that a person can paste.

It holds the device's private key: whoever has the word is that device to the federation. The word is the base64url
encoding, without padding, of one JSON document.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec

from device_profiles.errors import FormatError
from device_profiles.files import from_json

INVITATION_VERSION = 1
"""A reader refuses a version that it does not know."""
_REMEDY = "paste the whole line that 'profl-server federation add-device' printed"
_SOURCE = "--invite"
_MOST_CHARACTERS = 64 << 10

Name = Annotated[
    str,
    msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="at most 64 letters, digits, ., _ and -"),
]
"""Of a device; names a folder as well."""
Address = Annotated[
    str, msgspec.Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$", description="HOST:PORT")
]
"""`host:port`; an IPv6 address stands in brackets."""


class Invitation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `profl-server federation add-device` gives to one device.

    Attributes:
        name: what the federation calls the device.
        address: of the SuperLink's Fleet API, `host:port`.
        ca: certificates, PEM, one of which has signed the SuperLink's.
        key: the device's private key, PEM or OpenSSH, with which it says who it is.
        server_key: public key, PEM, that every order of the federation's server is signed with.
    """

    name: Name
    address: Address
    ca: Annotated[str, msgspec.Meta(pattern="^-----BEGIN CERTIFICATE-----\n", description="a certificate")]
    key: Annotated[
        str, msgspec.Meta(pattern="^-----BEGIN ((EC|OPENSSH) )?PRIVATE KEY-----\n", description="a private key")
    ]
    server_key: Annotated[str, msgspec.Meta(pattern="^-----BEGIN PUBLIC KEY-----\n", description="a public key")]
    version: int = INVITATION_VERSION

    def encoded(self) -> str:
        """The word, of letters, digits, `-` and `_`."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()


class _Versioned(msgspec.Struct):
    version: int


def decode_invitation(word: str) -> Invitation:
    """The invitation that a `word` is; blanks and line ends around and in it are left out. Raises FormatError."""
    text = "".join(word.split())
    if not text or len(text) > _MOST_CHARACTERS:
        raise FormatError(f"{_SOURCE}: is not an invitation", remedy=_REMEDY)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version = msgspec.json.decode(raw, type=_Versioned).version
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise FormatError(f"{_SOURCE}: is not an invitation, or not all of one", remedy=_REMEDY) from None
    if version != INVITATION_VERSION:
        raise FormatError(
            f"{_SOURCE}: is an invitation of version {version}, this release reads version {INVITATION_VERSION}",
            remedy="install the release of profl-edge that the server has",
        )
    try:
        return from_json(raw, Invitation, _SOURCE)
    except FormatError as error:
        raise FormatError(error.message, remedy=_REMEDY) from None
