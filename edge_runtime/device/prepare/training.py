"""Prepare the training of one block: everything that can be wrong is found here, before the training process starts."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from device_profiles.errors import DataError, UsageError
from device_profiles.manifest import Program
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.outputs import followed, in_place, temporary_start
from device_profiles.settings import Setting
from device_profiles.work import Distill
from edge_runtime.device.data import DataSource
from edge_runtime.device.prepare.bundle import Bundle, open_bundle
from edge_runtime.device.prepare.cached_prefix import AugmentedCache, cache_job, default_folder
from edge_runtime.device.prepare.checkpoint import Settings, checkpoint_path, load_checkpoint
from edge_runtime.device.prepare.chosen import chosen_programs
from edge_runtime.device.prepare.examples import check_examples, data_job, open_examples
from edge_runtime.device.prepare.job import new_job, program_job, set_optimizer
from edge_runtime.device.prepare.laid_weights import LaidWeights
from edge_runtime.device.prepare.request import TrainRequest, check_options
from edge_runtime.device.worker.job import Job


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedTraining:
    """A job, and the data set whose open files it names."""

    job: Job
    data: DataSource


def prepare_training(request: TrainRequest, *, json: bool) -> PreparedTraining:
    """The request as a job. The caller holds the lock of the output.

    Raises a child of ProflError with one line for everything that is wrong with the files, the data or the options.
    """
    bundle = open_bundle(request.bundle)
    features, program = chosen_programs(request, bundle)
    check_options(request, program)
    model = bundle.manifest.model
    data = open_examples(request.data, "train", bundle, program)
    check_examples(data, model)
    if request.augment is not None and data.image_shape is None:
        raise UsageError(
            (Setting("data", request.data), " holds inputs of the model's own, not images"),
            field="augment",
            value=request.augment,
            remedy=("leave ", Setting("augment"), " out, or give images of bytes"),
        )
    per_epoch = len(data) // program.batch
    if per_epoch == 0:
        raise DataError(
            f"{len(data)} examples do not fill one batch of {program.batch}",
            field="data",
            value=request.data,
            remedy=("give more data, or export with a smaller ", Setting("batch")),
        )
    weights = LaidWeights(bundle, request.weights)
    programs = [program] if features is None else [features, program]
    weights.check_whole(programs, initial_allowed=request.initial_prefix)
    described = program_job(bundle, program, threads=request.threads, weights=weights)
    job = new_job("train", described, threads=request.threads, json=json)
    if features is not None and request.cache_prefix is not None:
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
            raise UsageError(
                (Setting("resume"), " requires ", Setting("output"), ": the checkpoint lies beside the output")
            )
        return PreparedTraining(job=job, data=data)
    job["output"] = str(request.output)
    if in_place(str(request.output)):
        if request.resume:
            raise UsageError(
                ("no checkpoint lies beside ", Setting("output", request.output)),
                field="resume",
                remedy="give the name of a file",
            )
        job["checkpoint_every"] = 0
        return PreparedTraining(job=job, data=data)
    checkpoint = checkpoint_path(request.output)
    job["checkpoint"] = str(checkpoint)
    if request.resume and checkpoint.exists():
        progress, job["state"] = load_checkpoint(checkpoint, program, settings)
        job["done"], job["loss_first"], job["loss_last"] = progress.steps, progress.loss_first, progress.loss_last
        job["loss_smoothed"] = progress.loss_smoothed
        if progress.steps > job["steps"]:
            raise UsageError(
                (f"{checkpoint}: is at step {progress.steps}, beyond ", Setting("steps", job["steps"])),
                remedy="give more steps",
            )
    return PreparedTraining(job=job, data=data)


def _augmented_cache(request: TrainRequest) -> AugmentedCache | None:
    if request.augment is None or request.cached_augmentations is None:
        return None
    return AugmentedCache(augment=request.augment, versions=request.cached_augmentations, seed=_augment_seed(request))


def _augment_seed(request: TrainRequest) -> int:
    return request.seed if request.augment_seed is None else request.augment_seed


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
    kind = OPTIMIZERS[program.optimizer.name]
    return kind.distillation_rate if isinstance(program.work, Distill) else kind.learning_rate


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
