"""What can go wrong between a device and its SuperLink.

LinkError                    the SuperLink cannot be used (exit status 1)
├── LinkDownError            no answer until the caller's deadline
├── LinkStoppedError         the caller's stop event was set while it waited
├── CertificateError         the SuperLink is not the one that the certificate names
├── KeyRefusedError          the SuperLink does not know the key of this device, or not any more
├── ClockError               the clock of this device and that of the SuperLink differ too much
├── ProtocolError            an answer that Flower 1.41 does not give
├── MessageGoneError         the message expired, was answered already or is not kept any more
└── RunEndedError            the run of the message has ended
"""

from __future__ import annotations

from device_profiles.errors import ExecutionError


class LinkError(ExecutionError):
    """The SuperLink cannot be used."""


class LinkDownError(LinkError):
    """No connection, or none that lasts; it may come back."""


class LinkStoppedError(LinkError):
    """Somebody asked to stop while the link was down."""


class CertificateError(LinkError):
    """TLS found somebody else than the SuperLink."""


class KeyRefusedError(LinkError):
    """The key was never registered, or was revoked."""


class ClockError(LinkError):
    """Signatures of this device are too old or too new for the SuperLink."""


class ProtocolError(LinkError):
    """Not what the Fleet API of Flower 1.41 answers."""


class MessageGoneError(LinkError):
    """Nothing more can be fetched of the message, and no answer to it is taken."""


class RunEndedError(LinkError):
    """The run has ended; nobody waits for the answer."""
