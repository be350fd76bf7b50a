"""A checkpoint: every mutable buffer of a training program, and the settings it belongs to.

It lies beside the output as `<OUT>.checkpoint`; the training process writes it, and removes it in the end.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from device_profiles.contract import Augmentation
from device_profiles.errors import FormatError, UsageError
from device_profiles.manifest import Program
from device_profiles.outputs import beside, followed
from device_profiles.seal import check_seal
from device_profiles.settings import Setting
from device_profiles.wrong_values import explained
from edge_runtime.device.prepare.tensors import TensorFile
from edge_runtime.device.worker.job import CacheDType, Source


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
    cache_prefix: CacheDType | None = None
    proximal_mu: float = 0.0
    augment: Augmentation | None = None
    augment_seed: int | None = None
    augment_epoch: int | None = None
    cached_augmentations: int | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the run was: `steps` done, loss of the first and of the last of them, and that of the latest together."""

    steps: int
    loss_first: float
    loss_last: float
    loss_smoothed: float | None = None


class _Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    settings: Settings
    progress: Progress


def checkpoint_path(output: Path) -> Path:
    """Where the checkpoint of `output` lies: beside the file itself where that is a link."""
    return Path(beside(followed(str(output)), ".checkpoint"))


def load_checkpoint(path: Path, program: Program, settings: Settings) -> tuple[Progress, dict[str, Source]]:
    """How far the run was, and where the program's mutable buffers lie in the file.

    Raises DigestError where its bytes are damaged, FormatError where the file is no checkpoint of this program,
    UsageError, naming the first setting that differs, where it belongs to another run.
    """
    if path.is_file():
        check_seal(str(path), remedy="omit --resume to start again", required=True)
    source = TensorFile(path)
    try:
        metadata = msgspec.json.decode(source.metadata.get("profl_checkpoint", ""), type=_Metadata, strict=True)
    except msgspec.DecodeError as error:
        raise FormatError(f"{path}: not a checkpoint: {explained(error, _Metadata)}") from None
    for field in settings.__struct_fields__:
        before, now = getattr(metadata.settings, field), getattr(settings, field)
        if before != now:
            raise UsageError(
                f"{path}: belongs to a run with {field} {before}, this one has {now}",
                remedy=("use the same settings, or leave ", Setting("resume"), " out to start again"),
            )
    places = {}
    for tensor in program.tensors:
        if tensor.role == "gradient_sum":  # zero between steps
            continue
        source.check(tensor.name, tensor.dtype, tensor.shape)
        places[tensor.name] = source.place(tensor.name)
    source.close()
    return metadata.progress, places
