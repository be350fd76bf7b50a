"""The `flower` engine: tasks as signed orders to the nodes of a SuperLink, their answers as events."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from device_profiles.federation import TRAIN_TASK, TrainOrder
from device_profiles.task import Task
from server.engines.flower.answers import failed, read_reply, stated_update
from server.engines.flower.arrivals import Arrivals
from server.engines.flower.arriving import Reply, Wanted
from server.engines.flower.device import Change, Device
from server.engines.flower.devices import Devices
from server.engines.flower.inbox import Inbox
from server.engines.flower.mail import Letter, Mail
from server.engines.flower.parcels import Parcels
from server.fleet.client import Client
from server.fleet.fleet import TrainingSettings
from server.fleet.structure import Structure
from server.rounds.seam import BudgetChanged, Event, Failed, Joined, Left, Updated

_TICK_SECONDS = 0.5
_SETTLE_SECONDS = 0.1
"""What one that only wants to know what happened waits for an answer that is on its way through the inbox."""
_TRANSFER_SECONDS = 900.0
"""Without a deadline, what an order may take beside its training before nobody waits any more."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What follows from the bundle that is trained.

    Attributes:
        client_of: a device as the rounds see it.
        changed: told whenever a device is doing something else.
    """

    parcels: Parcels
    structure: Structure
    client_of: Callable[[Device], Client]
    changed: Callable[[Task | None], None] = lambda task: None


@dataclass(frozen=True, slots=True)
class _Sent:
    """A task that is out, or was given up: only an update is still told then, so that it can be refused."""

    task: Task
    device: Device
    at: float
    bytes_down: int
    structure: Structure


class FlowerEngine:
    """Devices of a federation as clients.

    Args:
        run: the run's name, as in its orders.
        folder: for updates on their way from the SuperLink to the rounds.
    """

    def __init__(
        self,
        *,
        run: str,
        mail: Mail,
        inbox: Inbox,
        devices: Devices,
        basis: Basis,
        settings: TrainingSettings,
        folder: Path,
    ) -> None:
        self._run = run
        self._mail = mail
        self._inbox = inbox
        self._devices = devices
        self._basis = basis
        self._settings = settings
        self._arrivals = Arrivals(folder)
        self._told_file: Path | None = None
        self._out: dict[str, _Sent] = {}
        self._given_up: dict[str, _Sent] = {}
        self._waiting: deque[Event] = deque()

    def use(self, basis: Basis) -> None:
        """Train another bundle from the next task on; an answer to an earlier one is that of the bundle before."""
        self._basis = basis

    def clients(self) -> Sequence[Client]:
        """Devices that may be given work now, in the order of their names."""
        return [self._basis.client_of(device) for device in self._devices.there()]

    def submit(self, tasks: Sequence[Task]) -> None:
        """Send an order for each task; one that cannot be sent has failed."""
        for task in tasks:
            device = self._devices.named(task.client)
            if device is None:
                self._waiting.append(failed(task, "left before it was asked"))
                continue
            self._submit(task, device)
        self._basis.changed(tasks[0] if tasks else None)

    def events(self, deadline: float | None) -> Generator[Event]:
        """What happens: answers, and devices that come, go or change."""
        while True:
            self._forget()
            for change in self._devices.look():
                yield from self._followed(change)
            while self._waiting:
                yield self._waiting.popleft()
            left = _SETTLE_SECONDS if deadline is None else deadline - time.monotonic()
            if self._out:
                arrived = self._inbox.next(
                    max(min(_TICK_SECONDS, left if deadline else _TICK_SECONDS), _SETTLE_SECONDS)
                )
            else:
                arrived = self._inbox.next(_SETTLE_SECONDS)
            if arrived is not None:
                yield from self._taken(*arrived)
            elif not self._out or (deadline is not None and time.monotonic() >= deadline):
                return

    def withdraw(self) -> None:
        """Wait for no task any more. Orders cannot be called back: a device refuses one that is older than another
        that it has taken, and its message expires."""
        self._forget()
        self._given_up |= self._out
        for sent in self._out.values():
            sent.device.done()
        self._out.clear()
        self._waiting.clear()
        self._basis.changed(None)

    def close(self) -> None:
        """Ask for nothing any more."""
        self._inbox.close()
        self._arrivals.close()

    def _submit(self, task: Task, device: Device, *, since: float | None = None) -> None:
        """Send the order for a task, which is out `since` then where it is sent again."""
        parcel = self._basis.parcels.of(task.work, task.weights)
        settings = self._settings
        client = self._basis.client_of(device)
        order = TrainOrder(
            run=self._run,
            client=task.client,
            attempt=task.attempt,
            work=task.work.name,
            files=dict(parcel.files),
            weights=parcel.weights,
            base_version=task.base_version,
            learning_rate=task.learning_rate,
            seed=task.seed,
            variant=client.trades.get(task.work.name, "default"),
            promise_bytes=client.needs.get(task.work.name, 0),
            steps=task.steps,
            epochs=task.epochs,
            proximal=task.proximal,
            threads=settings.threads,
            timeout_seconds=settings.timeout_seconds,
            max_seconds=settings.max_seconds,
            augment=None if settings.augment == "none" else settings.augment,
        )
        letter = Letter(
            node=device.node,
            kind=TRAIN_TASK,
            document=msgspec.json.encode(order),
            seconds=settings.deadline_seconds or settings.timeout_seconds + _TRANSFER_SECONDS,
            files=parcel.record,
            group=str(task.attempt),
        )
        sent = self._mail.send(letter)
        if isinstance(sent, Reply):
            self._waiting.append(failed(task, sent.error or "could not be sent"))
            return
        device.given(task.work.name, sent)
        structure = self._basis.structure
        self._out[sent] = _Sent(task, device, time.monotonic() if since is None else since, parcel.bytes, structure)
        stated = partial(stated_update, task=task, run=self._run, structure=structure)
        path = self._arrivals.place(task.attempt, device.node)
        self._inbox.watch(sent, device.node, Wanted(path, stated))

    def _forget(self) -> None:
        """Remove the update that was told last; whoever was told has read it."""
        if self._told_file is not None:
            self._told_file.unlink(missing_ok=True)
            self._told_file = None

    def _taken(self, message_id: str, reply: Reply) -> Iterator[Event]:
        self._forget()
        sent = self._out.pop(message_id, None)
        if sent is None:
            late = self._given_up.pop(message_id, None)
            if late is not None:
                event, self._told_file = self._event(late, reply), reply.file
                if isinstance(event, Updated):
                    yield event
                return
            for change in self._devices.take(message_id, reply):
                yield from self._followed(change)
            return
        event, self._told_file = self._event(sent, reply), reply.file
        again = [key for key, other in self._out.items() if other.task is sent.task]
        if again and isinstance(event, Failed):
            return  # its order was sent again, and that one is waited for
        self._given_up |= {key: self._out.pop(key) for key in again}
        sent.device.done(event.result.status)
        self._basis.changed(sent.task)
        yield event

    def _event(self, sent: _Sent, reply: Reply) -> Updated | Failed:
        return read_reply(
            sent.task,
            reply,
            run=self._run,
            structure=sent.structure,
            seconds=time.monotonic() - sent.at,
            bytes_down=sent.bytes_down,
        )

    def _followed(self, change: Change) -> Iterator[Event]:
        """A device's change as the rounds hear it; with one that goes, its task is lost."""
        device = change.device
        if change.what == "came":
            yield Joined(client=self._basis.client_of(device))
        elif change.what == "changed":
            planned = self._basis.client_of(device)
            yield BudgetChanged(client=device.name, budget_bytes=device.budget_bytes, planned=planned)
        elif change.what == "lost":
            out = next((sent for sent in self._out.values() if sent.device is device), None)
            if out is not None:
                self._submit(out.task, device, since=out.at)
        else:
            lost = [key for key, sent in self._out.items() if sent.device is device]
            self._given_up |= {key: self._out.pop(key) for key in lost}
            device.done()
            yield Left(client=device.name)
        self._basis.changed(None)
