"""Prepare the training of one block: everything that can be wrong is found here, before the training process starts."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from device_profiles.contract import DEFAULT_DISTILLATION_RATES, DEFAULT_LEARNING_RATES, Augmentation, TrainingPurpose
from device_profiles.errors import DataError, UsageError
from device_profiles.manifest import Program
from device_profiles.model import Model
from device_profiles.outputs import followed, in_place, temporary_start
from edge_runtime.device.data import DataSource, Split, open_data
from edge_runtime.device.data.source import extents
from edge_runtime.device.prepare.bundle import Bundle, open_bundle
from edge_runtime.device.prepare.cached_prefix import AugmentedCache, cache_job, cache_programs, default_folder
from edge_runtime.device.prepare.checkpoint import Settings, checkpoint_path, load_checkpoint
from edge_runtime.device.prepare.job import new_job, program_job, set_optimizer
from edge_runtime.device.prepare.laid_weights import LaidWeights
from edge_runtime.device.worker.job import CacheDType, DataJob, Job


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRequest:
    """One `train` command. `steps` wins over `epochs`; without both, one epoch.

    With `first_block`, blocks from that one to `block` are trained together.

    What `augment` does follows from `augment_seed` (by default `seed`) and from the epoch, counted from `augment_epoch`
    on. `cached_augmentations`: versions of every example in a cache of the prefix, without which there is none of
    augmented images. `max_seconds` ends the training early, with an update.

    `weights` are laid over the bundle's initial ones in order, and `initial_prefix` says that frozen blocks may be the
    initial ones all the same. By default `base_version` is the version of the weights that result.
    """

    bundle: Path
    block: int
    data: str
    purpose: TrainingPurpose = "grow"
    first_block: int | None = None
    steps: int | None = None
    epochs: float | None = None
    max_seconds: float | None = None
    learning_rate: float | None = None
    proximal_mu: float | None = None
    augment: Augmentation | None = None
    augment_seed: int | None = None
    augment_epoch: int | None = None
    cached_augmentations: int | None = None
    seed: int = 0
    weights: tuple[Path, ...] = ()
    initial_prefix: bool = False
    output: Path | None = None
    base_version: str | None = None
    limit_bytes: int | None = None
    threads: int = 1
    checkpoint_every: int = 100
    resume: bool = False
    cache_prefix: CacheDType | None = None
    cache_folder: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A job, and the data set whose open files it names."""

    job: Job
    data: DataSource


def prepare_training(request: TrainRequest, *, json: bool) -> Prepared:
    """The request as a job. The caller holds the lock of the output.

    Raises a child of ProflError with one line for everything that is wrong with the files, the data or the options.
    """
    bundle = open_bundle(request.bundle)
    if request.first_block is not None:
        program = _joint_program(request, bundle)
    elif request.cache_prefix is None:
        program = bundle.program_for(request.purpose, request.block)
    else:
        features, program = cache_programs(bundle, request.block, request.purpose)
    _check_options(request, program)
    model = bundle.manifest.model
    data = open_examples(request.data, "train", bundle, program)
    check_examples(data, model)
    if request.augment is not None and data.image_shape is None:
        raise UsageError(
            f"--augment {request.augment}: --data {request.data} holds inputs of the model's own, not images; leave "
            "--augment out, or give images of bytes"
        )
    per_epoch = len(data) // program.batch
    if per_epoch == 0:
        raise DataError(
            f"--data {request.data}: {len(data)} examples do not fill one batch of {program.batch}; "
            "give more data, or export with a smaller --batch"
        )
    weights = LaidWeights(bundle, request.weights)
    programs = [program] if request.cache_prefix is None else [features, program]
    weights.check_whole(programs, initial_allowed=request.initial_prefix)
    described = program_job(bundle, program, threads=request.threads, weights=weights)
    job = new_job("train", described, threads=request.threads, json=json)
    if request.cache_prefix is not None:
        job["cache"] = cache_job(
            bundle,
            features,
            program,
            data,
            dtype=request.cache_prefix,
            folder=request.cache_folder or default_folder(),
            threads=request.threads,
            weights=weights,
            native=job["native"],
            augmented=_augmented_cache(request),
        )
    job["limit_bytes"], job["limit_name"] = request.limit_bytes, "--memory-limit"
    job["data"] = data_job(data, augment=request.augment is not None)
    job["augment_seed"], job["augment_epoch"] = _augment_seed(request), request.augment_epoch or 0
    job["steps"] = _step_count(request, per_epoch)
    job["max_seconds"] = request.max_seconds
    learning_rate = _learning_rate(request, program)
    set_optimizer(job, program, learning_rate, request.proximal_mu or 0.0)
    job["seed"] = request.seed
    version = weights.version()
    job["base_version"] = version if request.base_version is None else request.base_version
    job["initial_blocks"] = weights.initial_blocks(programs)
    job["checkpoint_every"] = request.checkpoint_every
    settings = _settings(
        request,
        bundle,
        program.name,
        data,
        weights=version,
        base_version=job["base_version"],
        learning_rate=learning_rate,
    )
    job["settings"] = msgspec.json.encode(settings).decode()
    if request.output is None:
        if request.resume:
            raise UsageError("--resume: requires -o, because the checkpoint is next to the output file")
        return Prepared(job=job, data=data)
    job["output"] = str(request.output)
    if in_place(str(request.output)):
        if request.resume:
            raise UsageError(f"--resume: there is no checkpoint next to -o {request.output}; give the name of a file")
        job["checkpoint_every"] = 0
        return Prepared(job=job, data=data)
    checkpoint = checkpoint_path(request.output)
    job["checkpoint"] = str(checkpoint)
    if request.resume and checkpoint.exists():
        progress, job["state"] = load_checkpoint(checkpoint, program, settings)
        job["done"], job["loss_first"], job["loss_last"] = progress.steps, progress.loss_first, progress.loss_last
        job["loss_smoothed"] = progress.loss_smoothed
        if progress.steps > job["steps"]:
            raise UsageError(
                f"{checkpoint}: is at step {progress.steps}, beyond --steps {job['steps']}; give more steps"
            )
    return Prepared(job=job, data=data)


def _joint_program(request: TrainRequest, bundle: Bundle) -> Program:
    """The program of several blocks; raises UsageError for what does not go with it."""
    assert request.first_block is not None  # asked for those requests alone
    if request.purpose != "grow":
        raise UsageError(
            f"--first-block: cannot be combined with --purpose {request.purpose}; only single blocks are distilled"
        )
    if request.cache_prefix is not None:
        raise UsageError("--first-block: cannot be combined with --cache-prefix")
    return bundle.joint_program(request.first_block, request.block)


def _check_options(request: TrainRequest, program: Program) -> None:
    """Raise UsageError for options that the program or another option does not go with."""
    if request.proximal_mu is not None and not (program.optimizer is not None and program.optimizer.proximal):
        raise UsageError(
            f"--proximal-mu: {program.name} of {request.bundle} has no proximal term; export the bundle with --proximal"
        )
    for given, option in ((request.augment_seed, "--augment-seed"), (request.augment_epoch, "--augment-epoch")):
        if given is not None and request.augment is None:
            raise UsageError(f"{option}: requires --augment")
    cached = request.cached_augmentations
    if cached is not None and (request.augment is None or request.cache_prefix is None):
        raise UsageError("--cached-augmentations: requires --augment and --cache-prefix")
    if request.augment is not None and request.cache_prefix is not None and cached is None:
        raise UsageError(
            "--augment and --cache-prefix: images that differ in every epoch have no features to keep; give "
            "--cached-augmentations N for N versions of every image, or leave one of the two out"
        )


def _augmented_cache(request: TrainRequest) -> AugmentedCache | None:
    if request.augment is None or request.cached_augmentations is None:
        return None
    return AugmentedCache(augment=request.augment, versions=request.cached_augmentations, seed=_augment_seed(request))


def _augment_seed(request: TrainRequest) -> int:
    return request.seed if request.augment_seed is None else request.augment_seed


def open_examples(spec: str, split: Split, bundle: Bundle, program: Program) -> DataSource:
    """The data of `spec` as `program` takes them; raises as `open_data` does."""
    model = bundle.manifest.model
    return open_data(
        spec,
        split=split,
        input_shape=model.input_shape,
        input_dtype=model.input_dtype,
        targets=model.classes if bundle.labels_are_targets(program) else None,
    )


def data_job(data: DataSource, *, augment: bool = False) -> DataJob:
    """Describe a data set for the training process; its files are inherited."""
    small = not data.targets and max(data.labels) < 256
    return DataJob(
        origin=data.origin,
        image_shape=None if data.image_shape is None else extents(data.image_shape),
        input_shape=data.input_shape,
        input_dtype=data.input_dtype,
        targets=data.targets,
        parts=data.parts,
        labels=bytes(data.labels.tolist()) if small else data.labels.tobytes(),
        label_format="f" if data.targets else "B" if small else "q",
        augment=augment,
    )


def check_examples(data: DataSource, model: Model) -> None:
    """Raise DataError, with the file, the value and its example, for a label or a token unknown to the model."""
    if not data.targets:
        check_labels(data, model.classes)
    if model.vocabulary is not None:
        data.check_tokens(model.vocabulary)


def check_labels(data: DataSource, classes: int) -> None:
    """Raise DataError, with the file, the value and its example, for a label outside [0, classes)."""
    for label in (min(data.labels), max(data.labels)):
        where = f"{data.labels_origin}: label {label} (example {data.labels.index(label)})"
        if not 0 <= label < classes:
            more = f"export the model with --classes {data.classes} or " if label >= classes else ""
            raise DataError(f"{where} is outside 0..{classes - 1}; {more}correct the labels, which count from 0")


def remove_leftovers(output: Path) -> None:
    """Remove temporary files that a killed run of the same output left; the lock says that nobody writes them now."""
    if in_place(str(output)):
        return
    written = (followed(str(output)), str(checkpoint_path(output)))
    ours = re.compile("|".join(rf"{re.escape(temporary_start(path))}[a-z0-9_]{{8}}" for path in written))
    with os.scandir(os.path.dirname(written[0]) or ".") as entries:
        for entry in entries:
            if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)


def _learning_rate(request: TrainRequest, program: Program) -> float:
    """The one that was asked for, or the usual one of the program's optimizer."""
    if request.learning_rate is not None or program.optimizer is None:
        return request.learning_rate or 0.0
    rates = DEFAULT_DISTILLATION_RATES if program.purpose == "distill" else DEFAULT_LEARNING_RATES
    return rates[program.optimizer.name]


def _step_count(request: TrainRequest, per_epoch: int) -> int:
    if request.steps is not None:
        return request.steps
    return max(1, round((request.epochs if request.epochs is not None else 1) * per_epoch))


def _settings(
    request: TrainRequest,
    bundle: Bundle,
    program: str,
    data: DataSource,
    *,
    weights: str,
    base_version: str,
    learning_rate: float,
) -> Settings:
    return Settings(
        bundle=bundle.digest,
        program=program,
        data=request.data,
        examples=len(data),
        labels_crc32=zlib.crc32(data.labels.tobytes()),
        learning_rate=learning_rate,
        seed=request.seed,
        weights=weights if request.weights else None,
        base_version=base_version,
        threads=request.threads,
        cache_prefix=request.cache_prefix,
        proximal_mu=request.proximal_mu or 0.0,
        augment=request.augment,
        augment_seed=request.augment_seed,
        augment_epoch=request.augment_epoch,
        cached_augmentations=request.cached_augmentations,
    )
