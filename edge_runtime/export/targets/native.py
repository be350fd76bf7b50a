"""Write a bundle: programs, initial weights and the manifest, as one folder that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from itertools import chain
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from device_profiles.contract import (
    COSTS_NAME,
    FORMAT_VERSION,
    INITIAL_WEIGHTS_NAME,
    MANIFEST_NAME,
    PROGRAMS_FOLDER,
    TIMELINES_NAME,
    WEIGHTS_FOLDER,
    DType,
)
from device_profiles.errors import ExecutionError, UsageError
from device_profiles.files import named, sha256_of, write_json
from device_profiles.folders import atomic_folder, check_output_folder
from device_profiles.manifest import FileEntry, Loss, Manifest, Optimizer
from device_profiles.model import Partition
from device_profiles.settings import Setting
from device_profiles.timeline import Timelines
from device_profiles.work import Growing
from edge_runtime.export import models
from edge_runtime.export.cut.stand_ins import initial_bound
from edge_runtime.export.cut.tied import check_tied
from edge_runtime.export.cut.trained import trained_units
from edge_runtime.export.cut.units import parse_partition, partition_of
from edge_runtime.export.ir.faults import faults_named
from edge_runtime.export.models.checked import notes_on
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.models.preparation import UNCHANGED, Preparation
from edge_runtime.export.optimizers import optimizer_of
from edge_runtime.export.plan.balanced import balanced_partition, single_partition
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.narrowed import narrowed
from edge_runtime.export.plan.programs import build_programs, checked_works
from edge_runtime.export.plan.runs import TrainingChoices
from edge_runtime.export.plan.timeline import plan_timeline
from edge_runtime.export.plan.traded import Traded, traded_step
from edge_runtime.export.targets.costs import capture_again, costs_of
from edge_runtime.export.targets.losses import check_loss

Progress = Callable[[str], None]
_PARTS = (MANIFEST_NAME, TIMELINES_NAME, COSTS_NAME, f"{PROGRAMS_FOLDER}/*.pte", f"{WEIGHTS_FOLDER}/*.safetensors")


def export_bundle(
    model: str,
    output: Path,
    *,
    width: int | None = None,
    blocks: int | None = None,
    partition: str | None = None,
    block: int | None = None,
    batch: int = 32,
    micro_batch: int | None = None,
    recompute_bytes: int | None = None,
    joint: bool = False,
    works: tuple[Growing, ...] | None = None,
    traded: tuple[Traded, ...] = (),
    optimizer: Optimizer | None = None,
    loss: Loss | None = None,
    frozen_dtype: DType = "float32",
    momentum: float = 0.9,
    momentum_dtype: DType = "float32",
    weight_decay: float = 5e-4,
    input_shape: tuple[int, ...] = (3, 32, 32),
    input_dtype: DType | None = None,
    classes: int = 10,
    head: str | None = None,
    seed: int = 0,
    preparation: Preparation = UNCHANGED,
    train_units: str | None = None,
    costs: bool = False,
    verify: bool = True,
    progress: Progress = lambda line: None,
) -> Manifest:
    """Export a model as a bundle at `output`.

    Args:
        model: name of a built-in model, or `package.module:factory`, a callable without arguments that returns one.
        output: folder to write; must not exist, or be an earlier bundle, which is replaced when the new one is whole.
        width: channels of a built-in model's first convolution.
        blocks: cut into this many blocks instead of the default ones; not together with `partition`.
        partition: unit ranges, `0-2,3-4`.
        block: export only this block's programs (1-based); all by default.
        batch: examples in one step.
        head: dotted path of the module where the classifier head begins; recognised by default.
        micro_batch: examples in one execution; divides `batch`, which it is by default.
        recompute_bytes: compute layers again in the backward pass until no arena is larger than this.
        joint: also the steps that train several blocks together, for every run of them.
        works: only the training steps of these, such as a plan needs, instead of every block's own.
        traded: further training steps that take less memory, by names of their own.
        optimizer: of the training programs; by default SGD with `momentum`, `momentum_dtype` and `weight_decay`.
        loss: what training minimises; by default the cross-entropy.
        input_dtype: float32, or int64 for tokens; by default what a built-in model takes, and float32 for others.
        momentum_dtype: how the momentum is stored, float32 or bfloat16.
        frozen_dtype: float32, or bfloat16 for weights that no program trains (see `plan/narrowed.py`).
        preparation: what is done to the model before it is captured, such as pretrained weights.
        train_units: only the step that trains these units, up to the last, and the head: `6-8`, `all` or `head`. All
            units are one block, unless `blocks` or `partition` says otherwise.
        costs: also write what every run of units would cost (`costs.json`).
        verify: hold the exporter's own step against PyTorch's on random data before the bundle appears.
        progress: told one line a program.

    Raises UsageError, naming the option, for anything that cannot be exported.
    """
    # Here and not above: the simulation takes the rest of this module where executorch is not installed.
    from edge_runtime.export.emit.pte import emit_program

    check_output_folder(output, _PARTS)
    torch.manual_seed(seed)
    module = create_model(
        model, width=width, classes=classes, input_shape=input_shape, preparation=preparation, note=progress
    )
    for note in notes_on(module):
        progress(note)
    micro_batches = _micro_batches(batch, micro_batch)
    source = BlockModel.of(
        module,
        name=model,
        batch=batch // micro_batches,
        input_shape=input_shape,
        classes=classes,
        head=head,
        input_dtype=input_dtype or models.default_dtype(model),
        batch_key="batch" if micro_batches == 1 else "micro_batch",
    )
    if train_units is not None:
        works = (trained_units(train_units, len(source.cut.units)),)
        partition = partition or (f"0-{len(source.cut.units) - 1}" if blocks is None else None)
    cut_into = choose_partition(source, model, blocks=blocks, partition=partition)
    chosen = chosen_blocks(cut_into, block)
    if optimizer is None:
        optimizer = Optimizer(name="sgd", momentum=momentum, weight_decay=weight_decay, momentum_dtype=momentum_dtype)
    optimizer_of(optimizer).check()
    loss = Loss() if loss is None else loss
    check_loss(loss, source)
    choices = TrainingChoices(
        optimizer=optimizer,
        loss=loss,
        micro_batches=micro_batches,
        recompute_bytes=recompute_bytes,
        joint=joint,
        works=None if works is None else checked_works(source, works, cut_into),
    )
    checked_works(source, [step.work for step in traded], cut_into)
    if frozen_dtype == "bfloat16":
        source = narrowed(module, source, choices.works)

    def in_executions(count: int) -> BlockModel:
        return source if count == 1 else capture_again(module, source, source.batch // count)

    steps = (traded_step(in_executions, cut_into, step, choices) for step in traded)
    with atomic_folder(output, _PARTS) as folder:
        (folder / PROGRAMS_FOLDER).mkdir()
        (folder / WEIGHTS_FOLDER).mkdir()
        described, timelines = [], {}
        for program, graph, plan in chain(build_programs(source, cut_into, blocks=chosen, choices=choices), steps):
            progress(f"{program.name}: arena {program.memory.arena_bytes / 2**20:.1f} MB")
            file = f"{PROGRAMS_FOLDER}/{program.name}.pte"
            with named(output / file):
                (folder / file).write_bytes(emit_program(graph, plan))
            described.append(program)
            timelines[program.name] = plan_timeline(graph, plan)
        with named(output / TIMELINES_NAME):
            document = Timelines(format_version=FORMAT_VERSION, planned=timelines)
            (folder / TIMELINES_NAME).write_bytes(msgspec.json.encode(document))
        if costs:
            progress("planning every run of units")
            with named(output / COSTS_NAME):
                table = costs_of(module, source, cut_into, choices)
                (folder / COSTS_NAME).write_bytes(msgspec.json.encode(table))
        weights = initial_weights(module, source, cut_into)
        _save_weights(weights, folder, output)
        if verify:
            progress(f"verified: the loss differs from PyTorch's by {_verify(module, source, choices.loss):.1e} of it")
        manifest = Manifest(
            created_by=f"profl-edge {_version()}",
            model=source.model,
            partition=cut_into,
            programs=tuple(described),
            files=_entries(folder),
        )
        manifest.check(str(output / MANIFEST_NAME))
        with named(output / MANIFEST_NAME):
            write_json(folder / MANIFEST_NAME, manifest)
    return manifest


def _verify(module: nn.Module, source: BlockModel, loss: Loss) -> float:
    """Hold the step against PyTorch's: how far the loss is off. Raises UsageError where they differ."""
    # Here and not above: it needs the native module, which the simulation has no use for.
    from edge_runtime.export.verify.verify import verify

    with faults_named("the step could not be held against PyTorch's"):
        return verify(module, source, loss)


def _save_weights(weights: dict[str, torch.Tensor], folder: Path, output: Path) -> None:
    """Write the initial weights into `folder`, which becomes `output`; raises ExecutionError where there is no room."""
    file = f"{WEIGHTS_FOLDER}/{INITIAL_WEIGHTS_NAME}.safetensors"
    try:
        save_file(weights, folder / file)
    except (OSError, SafetensorError) as error:
        raise ExecutionError(
            f"{output / file}: {error}", remedy=("make room, or choose another place with ", Setting("output"))
        ) from None


def _micro_batches(batch: int, micro_batch: int | None) -> int:
    """Executions of a step; raises UsageError unless the micro-batch divides the batch."""
    if batch < 1:
        raise UsageError("a step needs at least one example", field="batch", value=batch)
    if micro_batch is None:
        return 1
    if not 1 <= micro_batch <= batch or batch % micro_batch:
        raise UsageError(("must divide ", Setting("batch", batch)), field="micro_batch", value=micro_batch)
    return batch // micro_batch


def choose_partition(source: BlockModel, model: str, *, blocks: int | None, partition: str | None) -> Partition:
    """The partition asked for; by default the built-in model's own blocks, or one a unit for a user's model.

    What it chooses itself can be trained. Raises UsageError, naming the option, for a partition that cannot.
    """
    chosen = _partition(source, model, blocks=blocks, partition=partition)
    check_tied(source.cut, chosen, source.fixed)
    return chosen


def _partition(source: BlockModel, model: str, *, blocks: int | None, partition: str | None) -> Partition:
    count = len(source.cut.units)
    if blocks is not None and partition is not None:
        raise UsageError(
            (Setting("blocks"), " cannot be combined with ", Setting("partition")), remedy="leave one of the two out"
        )
    if partition is not None:
        return parse_partition(partition, count)
    if blocks is not None:
        return balanced_partition(source, blocks)
    if model in models.BUILT_IN:
        return partition_of(list(models.BUILT_IN[model].default_blocks), count)
    return single_partition(source)


def chosen_blocks(partition: Partition, block: int | None) -> tuple[int, ...]:
    """Only `block` (1-based), or every block; raises UsageError."""
    count = len(partition.blocks)
    if block is not None and not 1 <= block <= count:
        raise UsageError(f"the partition has blocks 1 to {count}", field="block", value=block)
    return tuple(range(1, count + 1)) if block is None else (block,)


def initial_weights(module: nn.Module, source: BlockModel, partition: Partition) -> dict[str, torch.Tensor]:
    """The module's `state_dict` and freshly initialised stand-ins (Kaiming, as they feed no normalisation)."""
    weights = {name: _stored(value) for name, value in module.state_dict().items()}
    weights |= {name: weights[name].to(torch.bfloat16) for name in source.narrow}
    for name, shape in source.stand_in_shapes(partition).items():
        bound = initial_bound(shape)
        weights[name] = torch.empty(shape).uniform_(-bound, bound)
    return weights | source.constants


def _stored(value: torch.Tensor) -> torch.Tensor:
    """As a manifest describes it: whole numbers and truths are int64."""
    value = value.detach().clone().contiguous()
    return value if value.is_floating_point() else value.to(torch.int64)


def _entries(folder: Path) -> tuple[FileEntry, ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        FileEntry(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in files
    )


def _version() -> str:
    try:
        return metadata.version("profl-edge")
    except metadata.PackageNotFoundError:
        return "unknown"
