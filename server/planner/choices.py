"""What a device may be asked for, and what it is promised to need there: as measured, else as predicted."""

from __future__ import annotations

from dataclasses import dataclass

from device_profiles.costs import RunCost
from device_profiles.errors import FormatError
from device_profiles.manifest import Program
from device_profiles.plan import ClientPlan
from device_profiles.predict import Calibration, Prediction, calibrate, predict
from device_profiles.profile import Cost, DeviceProfile
from device_profiles.promise import promise_of, promise_of_prediction
from device_profiles.trades import TRADES, Trade
from device_profiles.work import Distill, Growing
from edge_runtime.device.worker.text import megabytes_up

Trained = Growing | Distill

NEVER = 1 << 62
"""Bytes of what nobody can be asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A training program that a device may be asked for.

    Attributes:
        program: its name in the plan's partition.
        plan: what says its memory and loads; None where it is known from measurements alone.
    """

    work: Trained
    program: str
    trade: Trade = "default"
    plan: Program | RunCost | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An offer as one kind of device sees it.

    Attributes:
        promise: bytes, None where there is no promise.
        reason: why it cannot be done whatever the budget, empty where it can.
        measured: whether the promise is that of a measurement.
        seconds: of one step, None where nobody knows.
    """

    offer: Offer
    promise: int | None
    reason: str = ""
    measured: bool = False
    seconds: float | None = None

    @property
    def needs(self) -> int:
        """Bytes, `NEVER` where no budget is enough."""
        return NEVER if self.reason or self.promise is None else self.promise

    def planned(self, client: str, block: int, budget: int) -> ClientPlan:
        """It as the work of a client in the step of `block`, or why that does not fit."""
        reason = self.reason
        if not reason and self.needs > budget:
            reason = f"needs {megabytes_up(self.needs)}, may use {budget / 2**20:.1f} MB"
        return ClientPlan(
            client=client,
            block=block,
            work=None if reason else self.offer.work,
            program=None if reason else self.offer.program,
            predicted_peak_bytes=self.promise,
            budget_bytes=budget,
            fits=not reason,
            reason=reason or None,
            measured=self.measured,
        )


def in_order(choices: list[Choice]) -> list[Choice]:
    """Choices of one piece of work as a plan tries them: those that keep the result first."""
    return sorted(choices, key=lambda choice: TRADES.index(choice.offer.trade))


def budget_of(client: str, profile: DeviceProfile) -> int:
    """What a client may use, in bytes; raises FormatError where its profile does not say."""
    budget = profile.device.budget_bytes
    if budget is None:
        raise FormatError(f"profile of {client}: neither limit_bytes nor memory_available_bytes is known")
    return budget


class Device:
    """One kind of device, as a profile describes it.

    Args:
        profile: of any of the kind.
        bundle_sha256: the bundle that is planned for; what the profile measured of it wins over predictions.
        margin: of promises.
        examples: that each of these devices has.
    """

    def __init__(self, profile: DeviceProfile, bundle_sha256: str, *, margin: float, examples: int) -> None:
        self._profile = profile
        self._margin = margin
        self.examples = examples
        self._measured: dict[str, Cost] = (
            {cost.program: cost for cost in profile.costs} if profile.bundle_sha256 == bundle_sha256 else {}
        )
        self._known, self._unknown = _calibration(profile)

    @property
    def likeness(self) -> object:
        """The same for devices whose choices are the same."""
        own = tuple(
            (name, promise_of(cost, self._margin), cost.fits, cost.reason, cost.step_seconds_median)
            for name, cost in self._measured.items()
        )
        if self._known is None:
            return (own, self._unknown)
        return (own, repr(self._known), self._profile.measurement.threads, self.examples)

    @property
    def works(self) -> frozenset[Trained]:
        """What was measured of the bundle that is planned for."""
        return frozenset(c.work for c in self._measured.values() if isinstance(c.work, (Growing, Distill)))

    def choice(self, offer: Offer) -> Choice:
        """What an offer needs here."""
        cost = self._measured.get(offer.program)
        if cost is not None:
            return Choice(
                offer=offer,
                promise=promise_of(cost, self._margin),
                reason="" if cost.fits else cost.reason or "does not fit",
                measured=True,
                seconds=self._seconds(offer) if cost.step_seconds_median is None else cost.step_seconds_median,
            )
        if offer.plan is None:
            return Choice(offer=offer, promise=None, reason=f"{offer.program} is not in the bundle")
        prediction = self._predicted(offer)
        if prediction is None:
            return Choice(offer=offer, promise=None, reason=f"{offer.program} cannot be predicted: {self._unknown}")
        promise = promise_of_prediction(prediction, self._margin)
        return Choice(offer=offer, promise=promise, seconds=prediction.seconds_per_step)

    def _predicted(self, offer: Offer) -> Prediction | None:
        if self._known is None or offer.plan is None:
            return None
        return predict(offer.plan, self._profile, examples=self.examples, calibration=self._known)

    def _seconds(self, offer: Offer) -> float | None:
        prediction = self._predicted(offer)
        return None if prediction is None else prediction.seconds_per_step


def _calibration(profile: DeviceProfile) -> tuple[Calibration | None, str]:
    """What the profile says of programs that it has not measured, or why it says nothing."""
    if profile.runtime != "native":
        return None, "profile: runtime is torch, whose processes have no plan; profile the native runtime"
    try:
        return calibrate(profile.costs), ""
    except FormatError as error:
        return None, str(error)
