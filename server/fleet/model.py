"""The model of a fleet file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from device_profiles.contract import LossName
from device_profiles.manifest import Loss
from server.fleet.population import Positive


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is exported; as on the command line, which says what is meant where an option is left out."""

    name: str
    width: Positive | None = None
    classes: Annotated[int, msgspec.Meta(ge=1)] = 10
    input_shape: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1, max_length=3)] = (3, 32, 32)
    batch: Annotated[int, msgspec.Meta(ge=2)] = 32
    partition: str | None = None
    seed: int = 0
    input_dtype: Literal["float32", "int64"] | None = None
    head: str | None = None
    loss: LossName = "cross-entropy"
    label_smoothing: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    initial_weights: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    train_units: (
        Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}-[0-9]{1,6}$", description="a range of units, such as 3-8")]
        | None
    ) = None
    lora: Annotated[int, msgspec.Meta(ge=0)] = 0
    lora_alpha: Annotated[float, msgspec.Meta(gt=0)] | None = None
    lora_targets: tuple[str, ...] = ()

    @property
    def minimised(self) -> Loss:
        """What training minimises."""
        return Loss(name=self.loss, label_smoothing=self.label_smoothing)

    @property
    def targets(self) -> int:
        """Numbers that the output for an example is compared with; 0 where it is compared with labels."""
        return self.classes if self.loss == "mse" else 0

    @property
    def trained_run(self) -> tuple[int, int] | None:
        """First and last unit of `train_units`."""
        if self.train_units is None:
            return None
        first, last = map(int, self.train_units.split("-"))
        return first, last

    @property
    def cut(self) -> str | None:
        """The partition: as `partition` says, or the frozen units and the trained ones."""
        if self.trained_run is None:
            return self.partition
        first, last = self.trained_run
        return f"0-{first - 1},{first}-{last}" if first else f"0-{last}"
