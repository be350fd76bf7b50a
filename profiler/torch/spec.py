"""What the PyTorch meter asks its process to run; shared by both sides, and free of torch."""

from __future__ import annotations

from typing import Literal

import msgspec

from device_profiles.model import Model, Partition

TorchDevice = Literal["cpu", "cuda"]


class StepSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One block of one model. `stand_ins` are (input channels, output channels, stride) of the output module."""

    program: str
    model: str
    width: int | None
    classes: int
    input_shape: tuple[int, ...]
    batch: int
    prefix_tensors: tuple[str, ...]
    active_tensors: tuple[str, ...]
    stand_ins: tuple[tuple[int, int, tuple[int, int]], ...]
    device: TorchDevice
    threads: int
    steps: int
    warmup_steps: int


def step_spec(
    model: Model,
    partition: Partition,
    *,
    program: str,
    block: int,
    batch: int,
    device: TorchDevice,
    threads: int,
    steps: int,
    warmup_steps: int,
) -> StepSpec:
    """The spec of `block` (1-based); the stand-ins follow from the shapes of the blocks behind it."""
    active = partition.blocks[block - 1]
    tensors = [unit.tensors for unit in model.units]
    stand_ins = []
    for behind in partition.blocks[block:]:
        before = model.units[behind.first_unit].input_shape
        after = model.units[behind.last_unit].output_shape
        stride = (max(1, before[1] // after[1]), max(1, before[2] // after[2]))
        stand_ins.append((before[0], after[0], stride))
    return StepSpec(
        program=program,
        model=model.name,
        width=_width(model),
        classes=model.classes,
        input_shape=model.input_shape,
        batch=batch,
        prefix_tensors=tuple(name for unit in tensors[: active.first_unit] for name in unit),
        active_tensors=tuple(name for unit in tensors[active.first_unit : active.last_unit + 1] for name in unit),
        stand_ins=tuple(stand_ins),
        device=device,
        threads=threads,
        steps=steps,
        warmup_steps=warmup_steps,
    )


def _width(model: Model) -> int | None:
    """Channels of the first convolution: what built-in models are scaled by."""
    return next((tensor.shape[0] for tensor in model.tensors if len(tensor.shape) == 4), None)
