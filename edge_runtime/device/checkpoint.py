"""A checkpoint: every mutable buffer of a training program, and the settings it belongs to.

It lies beside the output as `<OUT>.checkpoint` and is removed when the output is written.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from device_profiles.errors import FormatError, UsageError
from edge_runtime.device.engine import Engine
from edge_runtime.device.tensors import TensorFile, write_tensors


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be the same for a resumed run to continue the interrupted one. The number of steps may differ."""

    bundle: str
    program: str
    data: str
    examples: int
    labels_crc32: int
    learning_rate: float
    seed: int
    weights: str | None
    base_version: str
    threads: int


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the run was: `steps` done, loss of the first and of the last of them."""

    steps: int
    loss_first: float
    loss_last: float


class _Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    settings: Settings
    progress: Progress


def checkpoint_path(output: Path) -> Path:
    """Where the checkpoint of `output` lies."""
    return output.with_name(output.name + ".checkpoint")


def save_checkpoint(path: Path, engine: Engine, settings: Settings, progress: Progress) -> None:
    """Write the engine's state to `path`, whole or not at all."""
    metadata = msgspec.json.encode(_Metadata(settings=settings, progress=progress)).decode()
    write_tensors(path, engine.state_tensors(), {"profl_checkpoint": metadata})


def load_checkpoint(path: Path, engine: Engine, settings: Settings) -> Progress:
    """Read the state back into the engine.

    Raises FormatError where the file is no checkpoint of this program, UsageError, naming the first setting that
    differs, where it belongs to another run.
    """
    source = TensorFile(path)
    try:
        metadata = msgspec.json.decode(source.metadata.get("profl_checkpoint", ""), type=_Metadata, strict=True)
    except msgspec.DecodeError as error:
        raise FormatError(f"{path}: not a checkpoint: {error}") from None
    for field in settings.__struct_fields__:
        before, now = getattr(metadata.settings, field), getattr(settings, field)
        if before != now:
            raise UsageError(
                f"{path}: belongs to a run with {field} {before}, this one has {now}; "
                "use the same settings, or leave --resume out to start again"
            )
    state = engine.state_tensors()
    for name, array in state.items():
        source.check(name, array.dtype.name, array.shape)
    for name, array in state.items():
        source.read_into(name, array)
    source.close()
    return metadata.progress
