"""From an order to an answer: the same for the light client and for an app of a stock node, whatever brings the order.

Nothing here knows of the connection: an order is its bytes, with a function that fetches a file by its name.
"""

from __future__ import annotations

import time

import msgspec

from device_profiles.errors import FormatError
from device_profiles.federation import (
    QUERY_DEVICE,
    QUERY_PROFILE,
    TRAIN_TASK,
    DeviceAnswer,
    DeviceQuestion,
    ProfileOrder,
    TrainOrder,
)
from edge_runtime.device.federation.answers import Answered, Fetch, Job
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.orders import read_order
from edge_runtime.device.federation.profiling import start_profile
from edge_runtime.device.federation.training import declined, start_training

_POLL_SECONDS = 0.2


def handle(device: Device, kind: str, raw: bytes, signature: bytes | None, fetch: Fetch, *, seconds: float) -> Answered:
    """The answer to an order of this `kind`, which may take `seconds` in all. Its files lie in the task's folder of the
    device's state, until that is told to `finish`.

    Raises FormatError for what is no order, or none that the server signed, and whatever `fetch` raises.
    """
    if kind != QUERY_DEVICE:
        device.state.finish()  # of one that was killed: its update is none of this order's
    job = begin(device, kind, raw, signature, fetch, seconds=seconds)
    try:
        while not isinstance(job, Answered):
            answer = job.poll()
            if answer is not None:
                return answer
            time.sleep(_POLL_SECONDS)
    except BaseException:
        if not isinstance(job, Answered):
            job.stop()
        raise
    return job


def begin(
    device: Device,
    kind: str,
    raw: bytes,
    signature: bytes | None,
    fetch: Fetch,
    *,
    seconds: float,
    spent: float = 0.0,
    again: bool = False,
) -> Job | Answered:
    """The same, but the work is only begun; `seconds` are left of it where `spent` of its own are over.

    `again`: it was taken before, and is continued.
    """
    check_signature(device, raw, signature)
    if kind == QUERY_DEVICE:
        read_order(raw, DeviceQuestion)
        return answer_question(device, busy=device.permission.refusal())
    if kind == QUERY_PROFILE:
        return start_profile(device, read_order(raw, ProfileOrder), fetch, seconds=seconds)
    if kind == TRAIN_TASK:
        order = read_order(raw, TrainOrder)
        refusal = _refusal(device, order)
        if refusal is not None:
            return declined(device, order, refusal)
        if not again:
            device.state.take(order.run, order.attempt)
        seconds = max(0.0, min(seconds, order.timeout_seconds - spent))
        return start_training(device, order, fetch, seconds=seconds, again=again)
    raise FormatError(f"the server's order: '{ascii(kind[:80])[1:-1]}' is no kind that this release knows")


def answer_question(device: Device, *, busy: str | None, took: tuple[str, ...] | None = None) -> Answered:
    """Who this device is, and which messages it took last where it counts them."""
    answer = DeviceAnswer(
        name=device.settings.name,
        release=device.release,
        budget_bytes=device.budget(),
        examples=device.examples,
        profile=device.state.profile(),
        busy=busy,
        took=took,
        ignorable=("took",),
    )
    profile = "no profile" if answer.profile is None else f"profile of {len(answer.profile.costs)} programs"
    what = f"name, budget, number of examples, {profile}"
    return Answered(document=msgspec.json.encode(answer), what=what)


def check_signature(device: Device, raw: bytes, signature: bytes | None) -> None:
    """Raise FormatError where the server of this federation did not sign the order."""
    if device.server_key is not None and not device.server_key.signed(raw, signature):
        raise FormatError("the server's order: is not signed by the server of this federation")


def _refusal(device: Device, order: TrainOrder) -> str | None:
    if device.settings.invited and order.client != device.settings.name:
        return f"the task is for {ascii(order.client[:80])[1:-1]}, this device is {device.settings.name}"
    newest = device.state.newest(order.run)
    if order.attempt < newest:
        return f"attempt {order.attempt} is older than attempt {newest}, which was taken before"
    return None
