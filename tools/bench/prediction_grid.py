"""What the study of predictions measures and keeps: the grid of bundles, and one line for each training."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from device_profiles.predict import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One bundle of the grid."""

    model: str
    width: int
    batch: int
    micro_batch: int | None = None
    recompute: float | None = None
    momentum_dtype: str = "float32"

    @property
    def name(self) -> str:
        """A folder's name, and the row's in the table."""
        parts = [self.model, f"w{self.width}", f"b{self.batch}"]
        if self.micro_batch is not None:
            parts.append(f"micro{self.micro_batch}")
        if self.recompute is not None:
            parts.append("recompute")
        if self.momentum_dtype != "float32":
            parts.append("bf16")
        return "-".join(parts)


CALIBRATIONS = {
    # what of a model's name it stands for: one bundle that is not in the grid
    "cnn": Entry(model="cnn", width=24, batch=96),
    "resnet": Entry(model="resnet18", width=24, batch=24),
    "vgg": Entry(model="vgg11_bn", width=24, batch=24),
}
GRID = (
    Entry(model="cnn", width=16, batch=64),
    Entry(model="cnn", width=32, batch=128),
    Entry(model="cnn", width=32, batch=128, micro_batch=32),
    Entry(model="resnet18", width=16, batch=32),
    Entry(model="resnet18", width=32, batch=16),
    Entry(model="resnet18", width=32, batch=32, micro_batch=8),
    Entry(model="resnet18", width=32, batch=32, recompute=0.85),
    Entry(model="resnet18", width=64, batch=8),
    Entry(model="resnet18", width=64, batch=32),
    Entry(model="resnet18", width=64, batch=32, micro_batch=16),
    Entry(model="resnet18", width=64, batch=16, momentum_dtype="bfloat16"),
    Entry(model="resnet34", width=32, batch=16),
    Entry(model="resnet34", width=48, batch=16, micro_batch=4),
    Entry(model="vgg11_bn", width=32, batch=64),
    Entry(model="vgg11_bn", width=64, batch=16),
    Entry(model="vgg11_bn", width=64, batch=32, momentum_dtype="bfloat16"),
    Entry(model="vgg16_bn", width=32, batch=32, recompute=0.85),
    Entry(model="vgg16_bn", width=48, batch=8),
)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One program of the grid: predicted and measured."""

    bundle: str
    program: str
    variant: str
    batch: int
    prediction: Prediction
    measured_bytes: int
    file_bytes: int

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return abs(self.prediction.peak_bytes - self.measured_bytes) / self.measured_bytes

    @property
    def above_bytes(self) -> int:
        """How far the measurement is above the prediction."""
        return self.measured_bytes - self.prediction.peak_bytes


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """One training under a limit."""

    bundle: str
    program: str
    limit_bytes: int
    lived: bool
    limit_kind: str
    peak_bytes: int | None
    why: str | None


class Study(msgspec.Struct, kw_only=True):
    """All results so far; what is there is not measured again."""

    threads: int
    points: list[Point] = []
    promised: list[Draw] = []
    tight: list[Draw] = []
