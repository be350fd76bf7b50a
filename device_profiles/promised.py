"""What a device is promised for a program, as its profile has it: what every command that shows a promise calls."""

from __future__ import annotations

from dataclasses import dataclass

from device_profiles.manifest import Program
from device_profiles.predict import Prediction, predict
from device_profiles.profile import Cost, DeviceProfile
from device_profiles.promise import DEFAULT_MARGIN, promise_of, promise_of_prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Promised:
    """A promise in bytes, and what stands behind it: the measurement of the program, or else a prediction."""

    bytes: int
    cost: Cost | None = None
    prediction: Prediction | None = None

    @property
    def measured(self) -> bool:
        """Whether the program was measured on the device."""
        return self.cost is not None


def promised(
    program: Program,
    profile: DeviceProfile,
    *,
    bundle_sha256: str,
    margin: float = DEFAULT_MARGIN,
    examples: int = 0,
    threads: int | None = None,
) -> Promised:
    """The promise of `program`, of the bundle with this digest, on the device of `profile`.

    What the profile measured of the bundle wins over a prediction, unless it was with other `threads`. Raises
    FormatError where there is neither.
    """
    measured = profile.bundle_sha256 == bundle_sha256 and threads in (None, profile.measurement.threads)
    cost = profile.cost(program.name) if measured else None
    if cost is not None:
        return Promised(bytes=promise_of(cost, margin), cost=cost)
    prediction = predict(program, profile, examples=examples, threads=threads)
    return Promised(bytes=promise_of_prediction(prediction, margin), prediction=prediction)
