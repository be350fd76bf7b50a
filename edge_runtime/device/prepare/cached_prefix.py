"""Describe the cache of the frozen prefix's outputs: which program fills it, and what it is valid for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from device_profiles.contract import PROGRAMS_FOLDER, Augmentation, TrainingPurpose
from device_profiles.errors import UsageError
from device_profiles.files import sha256_of
from device_profiles.manifest import Program
from edge_runtime.device.data import DataSource
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.job import program_job
from edge_runtime.device.prepare.laid_weights import LaidWeights
from edge_runtime.device.worker.job import CacheDType, CacheJob, Source

_PIECE_BYTES = 1 << 20
_SLOT_DIGITS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentedCache:
    """A cache of `versions` augmentations of every example: those of the first epochs of a training with this seed."""

    augment: Augmentation
    versions: int
    seed: int


def default_folder() -> Path:
    """Where caches of this user lie; raises UsageError where no folder is this user's."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():
        raise UsageError("--cache-prefix: this user has no home folder for the cache; set HOME or use --cache-dir")
    return folder / "profl-edge"


def cache_programs(bundle: Bundle, block: int, purpose: TrainingPurpose) -> tuple[Program, Program]:
    """The program that computes the features, and the training step that reads them; raises UsageError without."""
    if block == 1:
        raise UsageError("--cache-prefix: block 1 has no frozen blocks before it; omit --cache-prefix")
    try:
        return bundle.program_for("features", block), bundle.program_for(purpose, block, cached_prefix=True)
    except UsageError:
        raise UsageError(
            f"--cache-prefix: {bundle.path} has no programs for it at block {block}; export the bundle again"
        ) from None


def cache_job(
    bundle: Bundle,
    features: Program,
    step: Program,
    data: DataSource,
    *,
    dtype: CacheDType,
    folder: Path,
    threads: int,
    weights: LaidWeights,
    native: str,
    augmented: AugmentedCache | None = None,
) -> CacheJob:
    """The cache for this bundle, these weights and this data.

    Its file is named for block, type and data, so that what was computed with older weights is replaced.
    """
    described = program_job(bundle, features, threads=threads, weights=weights)
    shape = next(value.shape for value in step.inputs if value.role == "data")[1:]
    # Channels of images come first. One scale for each number of a plain vector would be larger than the number.
    channels = shape[0] if len(shape) > 1 else 1
    data_digest = _data_digest(data)
    program_file = f"{PROGRAMS_FOLDER}/{features.name}.pte"
    made_from = {
        "program": next(entry.sha256 for entry in bundle.manifest.files if entry.path == program_file),
        "weights": _tensors_digest([source for _, _, _, _, source, *_ in described["inputs"] if source is not None]),
        "kernels": sha256_of(Path(native).with_name("libprofl_kernels.so")),
        "data": data_digest,
        "shape": shape,
    }
    name = f"block{step.block}-{dtype}"
    if augmented is not None:
        made_from["augmented"] = tuple(dataclasses.asdict(augmented).values())
        name += f"-{augmented.augment}"
    slot = hashlib.sha256(f"{data_digest} {os.path.abspath(bundle.path)}".encode()).hexdigest()[:_SLOT_DIGITS]
    return CacheJob(
        path=os.path.abspath(folder / f"{name}-{slot}.features"),
        digest=hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest(),
        dtype=dtype,
        channels=channels,
        values=math.prod(shape) // channels,
        versions=1 if augmented is None else augmented.versions,
        program=described,
    )


def _data_digest(data: DataSource) -> str:
    """SHA-256 of every image's place and of the bytes of the files where they lie."""
    digest = hashlib.sha256(repr((data.image_shape, data.input_shape)).encode())
    for part in data.parts:
        if len(part) == 2:
            file, offsets = part
            digest.update(offsets)
            _add_bytes(digest, file, 0, os.fstat(file).st_size)
        else:
            file, first, stride, count = part
            digest.update(repr((stride, count)).encode())
            _add_bytes(digest, file, first, (count - 1) * stride + data.record_bytes)
    return digest.hexdigest()


def _tensors_digest(sources: list[Source]) -> str:
    digest = hashlib.sha256()
    for path, offset, size in sources:
        with open(path, "rb") as file:
            _add_bytes(digest, file.fileno(), offset, size)
    return digest.hexdigest()


def _add_bytes(digest: hashlib._Hash, file: int, offset: int, size: int) -> None:
    while size > 0 and (piece := os.pread(file, min(size, _PIECE_BYTES), offset)):
        digest.update(piece)
        offset, size = offset + len(piece), size - len(piece)
