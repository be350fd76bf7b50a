"""Whether an order has come: a SuperLink hands it out once, and a device that is killed just then does not have it.

A device that has an order for a while is asked which ones it took. Where it says so of one that it has all the same,
as where it takes messages in another order, that one is sent twice and done once.
"""

from __future__ import annotations

import time

import msgspec

from device_profiles.errors import FormatError
from device_profiles.federation import QUERY_DEVICE, DeviceAnswer, DeviceQuestion
from server.engines.flower.answers import read_answer
from server.engines.flower.arriving import Reply
from server.engines.flower.device import Device
from server.engines.flower.inbox import Inbox
from server.engines.flower.mail import Letter, Mail

CHECK_SECONDS = 30.0
"""After an order, and between two questions for it."""
_QUESTION_SECONDS = 60.0


class Deliveries:
    """Asks for orders that are out; `release` is that of this program."""

    def __init__(self, mail: Mail, inbox: Inbox, release: str) -> None:
        self._mail = mail
        self._inbox = inbox
        self._question = msgspec.json.encode(DeviceQuestion(release=release))

    def look(self, device: Device) -> None:
        """Ask a device for its order, if it is time and the device counts them."""
        now = time.monotonic()
        if not device.order or not device.counts_orders or device.checking or now < device.order_at + CHECK_SECONDS:
            return
        device.order_at = now
        letter = Letter(node=device.node, kind=QUERY_DEVICE, document=self._question, seconds=_QUESTION_SECONDS)
        sent = self._mail.send(letter)
        if not isinstance(sent, Reply):
            device.checking = sent
            self._inbox.watch(sent, device.node)

    def lost(self, device: Device, reply: Reply) -> bool:
        """Whether the answer to the question says that the device never took its order."""
        device.checking = ""
        try:
            if reply.error is not None:
                return False
            took = read_answer(reply.document, DeviceAnswer).took
        except FormatError:
            return False
        if took is None or not device.order:
            return False
        if device.order in took:
            device.order = ""
            return False
        return True
