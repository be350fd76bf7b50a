"""A device of a federation as the engine knows it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec

from device_profiles.profile import DeviceProfile


@dataclass(slots=True)
class Device:
    """A node that is connected.

    Attributes:
        name: "" until it answered.
        there: it may be given work: it has a budget and a profile, and is not busy.
        asked: the id of the question or the order for a profile that it has not answered.
        profiling: that is the order.
        task: the name of the work that it has, "" for none.
        last: what became of its last task.
        order: the message with the order that is out, a task or that for a profile, until the device has it for sure.
        order_at: when it was sent, or the device was asked for it last.
        counts_orders: it says which orders it took.
        checking: the question that asks for that.
    """

    node: int
    name: str = ""
    budget_bytes: int = 0
    examples: int = 0
    profile: DeviceProfile | None = None
    busy: str | None = None
    there: bool = False
    asked: str | None = None
    profiling: bool = False
    asked_at: float = 0.0
    ask_at: float = 0.0
    profile_at: float = 0.0
    task: str = ""
    last: str = ""
    order: str = ""
    order_at: float = 0.0
    counts_orders: bool = False
    checking: str = ""

    def given(self, task: str, order: str) -> None:
        """A task is out, in the message `order`."""
        self.task, self.last = task, ""
        self.out(order)

    def done(self, last: str = "") -> None:
        """No task is out; `last`: what became of it."""
        self.task, self.order, self.checking, self.last = "", "", "", last or self.last

    def out(self, order: str) -> None:
        """An order is on its way, which nobody knows yet to have come."""
        self.order, self.order_at, self.checking = order, time.monotonic(), ""

    def waits_for(self) -> str:
        """Why it may be given no work yet, as a person reads it."""
        if not self.name:
            return "has not answered yet"
        if self.busy is not None:
            return self.busy
        if self.profiling:
            return "measures its programs"
        return "has no profile" if self.profile is None else "has no memory to spare"

    def limited(self) -> DeviceProfile:
        """Its profile, with what it may use now."""
        assert self.profile is not None
        device = msgspec.structs.replace(self.profile.device, limit_bytes=self.budget_bytes)
        return msgspec.structs.replace(self.profile, device=device)


@dataclass(frozen=True, slots=True)
class Change:
    """`device` `came`, `went`, has `changed` its budget, or has `lost` the task that it was given."""

    device: Device
    what: str
