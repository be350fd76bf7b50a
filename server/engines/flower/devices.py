"""The devices of a federation: who is connected, what each says of itself, and its profile, which is asked for once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from device_profiles.errors import FormatError
from device_profiles.federation import (
    QUERY_DEVICE,
    QUERY_PROFILE,
    DeviceAnswer,
    DeviceQuestion,
    ProfileAnswer,
    ProfileOrder,
)
from device_profiles.files import read_json, write_json
from device_profiles.predict import calibrate
from device_profiles.profile import DeviceProfile
from server.engines.flower.answers import read_answer
from server.engines.flower.arriving import Reply
from server.engines.flower.deliveries import Deliveries
from server.engines.flower.device import Change, Device
from server.engines.flower.inbox import Inbox
from server.engines.flower.mail import Letter, Mail
from server.engines.flower.parcels import Parcel
from server.judging.strangers import plain

Note = Callable[[str], None]

LOOK_SECONDS = 3.0
"""Between two looks at who is connected."""
ASK_SECONDS = 30.0
"""After which a device that has nothing to do is asked again what it may use, at the earliest."""
_ASK_SHARE = 20
"""A device that needs long for an answer is asked less often: a stock SuperNode starts a process for each."""
_QUESTION_SECONDS = 60.0
_PROFILE_SECONDS = 3600.0
_AGAIN_SECONDS = 600.0
"""After which a device that could not be profiled is asked for its profile again."""
_NAME_CHARACTERS = 64


class Devices:
    """Follows the nodes of a SuperLink.

    Args:
        run: the run's name, as in its orders.
        release: of this program.
        calibration: what a device without a profile measures; made when the first one needs it.
        folder: where profiles are kept, a file for each name.
        named: the federation's own name of a node, None where it has none.
        threads: of a training.
    """

    def __init__(
        self,
        mail: Mail,
        inbox: Inbox,
        *,
        run: str,
        release: str,
        calibration: Callable[[], Parcel],
        folder: Path,
        named: Callable[[int], str | None],
        threads: int,
        note: Note,
    ) -> None:
        self._mail = mail
        self._inbox = inbox
        self._run = run
        self._release = release
        self._calibration = calibration
        self._folder = folder
        self._named = named
        self._threads = threads
        self._note = note
        self._devices: dict[int, Device] = {}
        self._deliveries = Deliveries(mail, inbox, release)
        self._look_at = 0.0

    def all(self) -> list[Device]:
        """Everybody who is connected, in the order of their names."""
        return sorted(self._devices.values(), key=lambda device: (device.name, device.node))

    def there(self) -> list[Device]:
        """Those that may be given work, in the order of their names."""
        return [device for device in self.all() if device.there]

    def named(self, name: str) -> Device | None:
        """The one of that name that may be given work."""
        return next((device for device in self._devices.values() if device.there and device.name == name), None)

    def look(self) -> Iterator[Change]:
        """See who is connected, if it is time, and ask those who have nothing else to do."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            nodes = self._mail.nodes()
            for node in [node for node in self._devices if node not in nodes]:
                yield from self._without(self._devices.pop(node))
            for node in nodes:
                self._devices.setdefault(node, Device(node=node))
        for device in list(self._devices.values()):
            if device.asked is None and not device.task and now >= device.ask_at:
                self._ask(device)
            self._deliveries.look(device)

    def take(self, message_id: str, reply: Reply) -> Iterator[Change]:
        """Follow the answer to a question or to an order for a profile; others are of no interest here."""
        asked = next((device for device in self._devices.values() if device.checking == message_id), None)
        if asked is not None:
            yield from self._delivered(asked, reply)
            return
        device = next((device for device in self._devices.values() if device.asked == message_id), None)
        if device is None:
            return
        profiling, device.asked, device.profiling = device.profiling, None, False
        now = time.monotonic()
        device.ask_at = now + max(ASK_SECONDS, 0.0 if profiling else _ASK_SHARE * (now - device.asked_at))
        try:
            if reply.error is not None:
                raise FormatError(reply.error)
            if profiling:
                self._profiled(device, read_answer(reply.document, ProfileAnswer))
            else:
                yield from self._answered(device, read_answer(reply.document, DeviceAnswer))
        except FormatError as error:
            if profiling:
                device.profile_at = time.monotonic() + _AGAIN_SECONDS
            # A question that expired with its node is not worth a line.
            if profiling or reply.error is None:
                self._note(f"{device.name or device.node}: {error}")
        yield from self._judged(device)

    def _delivered(self, device: Device, reply: Reply) -> Iterator[Change]:
        """Send again what a device was given and does not have."""
        if not self._deliveries.lost(device, reply):
            return
        self._note(f"{device.name}: does not have what it was asked for, as after a kill, and is asked again")
        if device.profiling:
            self._order_profile(device)
        else:
            yield Change(device, "lost")

    def _ask(self, device: Device) -> None:
        question = msgspec.json.encode(DeviceQuestion(release=self._release))
        self._send(device, Letter(node=device.node, kind=QUERY_DEVICE, document=question, seconds=_QUESTION_SECONDS))

    def _order_profile(self, device: Device) -> None:
        parcel = self._calibration()
        order = ProfileOrder(run=self._run, files=dict(parcel.files), threads=self._threads)
        self._note(f"{device.name}: has no profile, and is asked for one")
        letter = Letter(
            node=device.node,
            kind=QUERY_PROFILE,
            document=msgspec.json.encode(order),
            seconds=_PROFILE_SECONDS,
            files=parcel.record,
        )
        self._send(device, letter)
        device.profiling = device.asked is not None
        if device.asked is not None:
            device.out(device.asked)

    def _send(self, device: Device, letter: Letter) -> None:
        device.asked = None
        sent = self._mail.send(letter)
        if isinstance(sent, Reply):
            device.ask_at = time.monotonic() + ASK_SECONDS
            self._note(f"{device.name or device.node}: {sent.error}")
            return
        device.asked, device.asked_at = sent, time.monotonic()
        self._inbox.watch(sent, device.node)

    def _answered(self, device: Device, answer: DeviceAnswer) -> Iterator[Change]:
        device.counts_orders = answer.took is not None
        if not device.name:
            device.name = self._free_name(device.node, answer.name)
        changed = device.there and device.budget_bytes != answer.budget_bytes
        device.budget_bytes, device.examples = answer.budget_bytes, answer.examples
        # With a task that it was given since it was asked, it may be busy with that.
        device.busy = None if answer.busy is None or device.task else plain(answer.busy)
        if answer.profile is not None and _predicts(answer.profile):
            device.profile = answer.profile
        elif device.profile is None:
            device.profile = self._kept(device.name)
        if changed:
            yield Change(device, "changed")
        if device.profile is None and device.busy is None and time.monotonic() >= device.profile_at:
            self._order_profile(device)

    def _profiled(self, device: Device, answer: ProfileAnswer) -> None:
        if answer.profile is None:
            raise FormatError(f"could not be profiled: {plain(answer.status)}")
        if not _predicts(answer.profile):
            raise FormatError("no program that it measured fits it")
        device.profile = answer.profile
        write_json(self._folder / f"{device.name}.json", answer.profile.without_timelines())

    def _kept(self, name: str) -> DeviceProfile | None:
        try:
            profile = read_json(self._folder / f"{name}.json", DeviceProfile)
        except FormatError:
            return None
        return profile if _predicts(profile) else None

    def _judged(self, device: Device) -> Iterator[Change]:
        """Say who came and who does not take work any more."""
        able = bool(device.name) and device.profile is not None and device.busy is None and device.budget_bytes > 0
        if able and not device.there:
            device.there = True
            yield Change(device, "came")
        elif not able:
            yield from self._without(device)

    def _without(self, device: Device) -> Iterator[Change]:
        if device.there:
            device.there = False
            yield Change(device, "went")

    def _free_name(self, node: int, said: str) -> str:
        """What the federation calls it, else what it calls itself; two of one name are told apart by their nodes."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", self._named(node) or said)[:_NAME_CHARACTERS].lstrip(".-") or "device"
        taken = {device.name for device in self._devices.values() if device.node != node}
        return name if name not in taken else f"{name}-{node:x}"


def _predicts(profile: DeviceProfile) -> bool:
    """Whether anything follows from a profile; one that contradicts itself says nothing."""
    try:
        profile.check("profile")
        return profile.runtime == "native" and calibrate(profile.costs) is not None
    except FormatError:
        return False
