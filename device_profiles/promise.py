"""The promise: bytes that a client is planned with, and that the operating system holds it to. One rule for all.

A device's own command states what its training process will need (`Program.memory`, the base of a process and
`VARIATION_BYTES`), and a limit of that size is enough. A plan promises more: a margin for what differs between two runs
on the device, and never less than the command itself takes before it trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # devices import this file too, and have no use for profiles
    from device_profiles.predict import Prediction
    from device_profiles.profile import Cost

PREPARING_BYTES = 32 << 20
"""Resident memory of a command while it reads bundle, data and options and has not become the training process yet: a
promise is never below it. A test holds it against real commands."""

VARIATION_BYTES = 512 << 10
"""Part of every promise: what the base of a process differs by between two starts, and the supervisor beside it. A
limit is enough where the promise without it fits, so that a limit set to a promise is kept by every later start."""

DEFAULT_MARGIN = 0.05
"""Part of the measured peak that is added to it in every promise, for what differs between two runs."""


def promise_of(cost: Cost, margin: float) -> int:
    """Bytes that are promised for the whole command: the larger of predicted and measured peak of the training, with
    the margin, and no less than what the command takes before it trains."""
    return max(with_margin(max(cost.predicted_peak_bytes, cost.measured_peak_bytes or 0), margin), PREPARING_BYTES)


def promise_of_prediction(prediction: Prediction, margin: float) -> int:
    """The same of a program that was not measured on the device: no less than what the prediction may be wrong by."""
    return max(with_margin(prediction.peak_bytes, margin), prediction.high_bytes, PREPARING_BYTES)


def margin_text(margin: float) -> str:
    """What a table says below its promises."""
    return f"{margin:.0%} above what is needed"


def with_margin(peak_bytes: int, margin: float) -> int:
    """A peak with the safety margin on it. Alone where nothing runs under a limit, as in the simulation."""
    return int(peak_bytes * (1 + margin))
