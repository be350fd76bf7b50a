"""What every piece of work needs in memory, by one rule for every method: planned, counted, or from a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from device_profiles.contract import ITEM_BYTES
from device_profiles.errors import FormatError
from device_profiles.model import Partition
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.work import (
    Depth,
    Distill,
    Grow,
    Growing,
    Joint,
    Narrow,
    Sublayers,
    Width,
    Work,
    label,
    suffixes,
)
from edge_runtime.export.plan.programs import is_trained_apart
from server.engines.simulation.losses import empty_labels
from server.engines.simulation.networks import WholeWork
from server.engines.simulation.segments import ModelPieces
from server.engines.simulation.trainable import Terms, Trainable
from server.engines.simulation.trainables import TrainableSet, narrower_width
from server.fleet.fleet import Fleet
from server.fleet.local_optimizer import local_optimizer
from server.fleet.model import ModelSettings
from server.planner.choices import NEVER
from server.planner.menus import step_alone
from server.planner.run_programs import RunPrograms

_MB = 1 << 20
RUNTIME_BASE_MB = 9.1
"""Python and the native module in a training process, measured (docs/memory.md)."""


PromiseSource = Callable[[Sequence[Work], Partition], dict[Work, int]]
"""Bytes of pieces of work in a partition; raises FormatError."""


def promises_of(
    fleet: Fleet, works: Sequence[Work], partition: Partition, *, source: str | None = None, by_label: bool = True
) -> dict[Work, int]:
    """Bytes that a training process needs for each of `works`, from the fleet file's `promises.source`.

    The works are about blocks of `partition`. The fleet's margin is not in them. Raises FormatError where a table
    lacks one of them.
    """
    return promise_source(fleet, source, by_label=by_label)(works, partition)


def needs_of_runs(fleet: Fleet, units: int) -> dict[int, tuple[int, ...]]:
    """What every run of a model's units needs, for the choice of steps: by the last unit of a step, bytes of each of
    its suffixes and of the output module alone, where what lies behind the step is one block."""
    of = promise_source(fleet, by_label=False)
    return {end: _needs(of, step_alone(end, units), 1) for end in range(units)}


def needs_in(fleet: Fleet, partition: Partition) -> dict[int, tuple[int, ...]]:
    """The same of the steps of a partition."""
    of = promise_source(fleet, by_label=False)
    return {block.last_unit: _needs(of, partition, block.index) for block in partition.blocks}


def _needs(of: PromiseSource, partition: Partition, block: int) -> tuple[int, ...]:
    works = suffixes(partition, block)
    table = of(works, partition)
    return tuple(table[work] for work in works)


def promise_source(fleet: Fleet, source: str | None = None, *, by_label: bool = True) -> PromiseSource:
    """The source of promises that the fleet file names, or another one of its `source`s. A table's labels are looked at
    only with `by_label`: they are about the blocks of the model's own partition."""
    settings = fleet.promises
    source = settings.source if source is None else source
    if source == "file":
        assert settings.file is not None  # read_fleet asks for it
        return partial(read_promises, Path(settings.file), by_label=by_label)
    model = msgspec.structs.replace(
        fleet.model,
        width=fleet.model.width if settings.width is None else settings.width,
        batch=fleet.model.batch if settings.batch is None else settings.batch,
    )
    return _planned(model, fleet) if source == "runtime" else _counted(model, fleet)


def _planned(model: ModelSettings, fleet: Fleet) -> PromiseSource:
    base = RUNTIME_BASE_MB if fleet.promises.base_mb is None else fleet.promises.base_mb
    planner = _RuntimePlans(model, fleet)

    def promises(works: Sequence[Work], partition: Partition) -> dict[Work, int]:
        return {work: planner.bytes_of(work, partition) + int(base * _MB) for work in works}

    return promises


def _counted(model: ModelSettings, fleet: Fleet) -> PromiseSource:
    base = 0.0 if fleet.promises.base_mb is None else fleet.promises.base_mb
    whole = TrainableSet(model)
    # FedProx's start, AdamW's second moment.
    more = int(fleet.training.proximal > 0) + OPTIMIZERS[fleet.training.optimizer].states - 1

    def promises(works: Sequence[Work], partition: Partition) -> dict[Work, int]:
        cut = whole.cut_into(partition)

        def promise(work: Work) -> int:
            if isinstance(work, Growing) and not is_trained_apart(cut.pieces.source, partition, work):
                return NEVER
            return counted_bytes(cut.of(work), cut.pieces_of(work), more=more) + int(base * _MB)

        return {work: promise(work) for work in works}

    return promises


def read_promises(path: Path, works: Sequence[Work], partition: Partition, *, by_label: bool = True) -> dict[Work, int]:
    """A table of promises by what works are called in `partition`, or by their units (`joint-units0-2`, whatever the
    blocks are); raises FormatError naming the file."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(error.strerror or str(error), field="promises.file", value=path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"is no JSON ({error})", field="promises.file", value=path) from None
    table = table.get("promises", table) if isinstance(table, dict) else table
    if not isinstance(table, dict):
        raise FormatError("is no object of bytes by work", field="promises.file", value=path)
    labels = {work: label(work, partition) for work in works}
    names = {work: _name_in(table, work, labels[work] if by_label else None) for work in works}
    missing = [labels[work] if by_label else work.name for work, name in names.items() if name not in table]
    if missing:
        raise FormatError(f"has no bytes for {', '.join(missing)}", field="promises.file", value=path)
    for name in names.values():
        if type(table[name]) is not int or table[name] < 0:
            raise FormatError(
                f"{name}: {json.dumps(table[name])} is not a whole number of bytes, at least 0",
                field="promises.file",
                value=path,
            )
    return {work: int(table[name]) for work, name in names.items()}


def _name_in(table: Mapping[str, object], work: Work, called: str | None) -> str:
    """What `table` calls `work`: its label, if that is asked for, or its units; a block is a run of units, too."""
    run = f"joint-units{work.first_unit}-{work.last_unit}" if isinstance(work, Grow) else work.name
    known = (name for name in (called, work.name, run) if name is not None and name in table)
    return next(known, work.name)


def counted_bytes(trainable: Trainable, pieces: ModelPieces, *, more: int = 0) -> int:
    """Bytes that PyTorch holds at the end of a forward pass: weights, gradients and momentum of what is trained, the
    frozen weights, and every tensor that autograd saves, each storage once; without its workspaces and libraries.

    `more`: further tensors of the size of each parameter, such as the start of a round, which FedProx's term keeps.
    """
    state = {
        name: torch.zeros(tensor.shape, requires_grad=tensor.role == "parameter")
        for name, tensor in trainable.trained.items()
    }
    shapes = pieces.source.tensor_shapes(pieces.partition)
    frozen = {name: torch.zeros(shapes[name]) for name in trainable.read if name not in state}
    saved: dict[int, int] = {}
    own = {tensor.data_ptr() for tensor in state.values()}

    def keep(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # or its address would be given to the next one

    kept: list[Tensor] = []
    with torch.no_grad():
        dtype = torch.int64 if pieces.source.input_dtype == "int64" else torch.float32
        x = torch.zeros(pieces.batch, *pieces.source.input_shape, dtype=dtype)
        if trainable.prefix is not None:
            x = trainable.prefix(frozen, x)
        teacher = {**frozen, **{name: tensor.detach() for name, tensor in state.items()}}
    numbers = pieces.source.classes if pieces.minimised.name == "mse" else 0
    labels = empty_labels(pieces.batch, pieces.source.positions, numbers)
    with torch.autograd.graph.saved_tensors_hooks(keep, _never_asked_for):
        trainable.loss(state, teacher, x, labels, Terms(consistency=1.0))
    kept.clear()  # the graph holds `keep`, which holds these, which hold the graph: neither would ever go
    trained = sum(tensor.numel() * 4 for tensor in state.values())
    parameters = sum(tensor.numel() * 4 for tensor in state.values() if tensor.requires_grad)
    if isinstance(trainable, WholeWork):
        parameters = round(parameters * trainable.trained_rows)
    frozen_bytes = sum(tensor.numel() * 4 for tensor in frozen.values())
    return trained + (2 + more) * parameters + frozen_bytes + sum(saved.values())


def _never_asked_for(kept: None) -> Tensor:
    raise NotImplementedError("what was counted has no backward pass")


class _RuntimePlans:
    """The light runtime's memory plans, made as an export makes them."""

    def __init__(self, model: ModelSettings, fleet: Fleet) -> None:
        self._model = model
        self._training = fleet.training
        self._recompute = fleet.promises.recompute
        self._programs: dict[int | None, RunPrograms] = {}

    def bytes_of(self, work: Work, partition: Partition) -> int:
        """Arena, frozen weights, workspace and staging of the training program for `work`; with `promises.recompute`
        of the one that recomputes, where that takes less.

        DepthFL's classifiers in between are no program of the runtime: its depths are counted as one block with the
        stand-ins of what is missing, which take at least as much.
        """
        width = self._model.width
        if isinstance(work, (Narrow, Width)):
            width = narrower_width(self._model, work.ratio)
        if width not in self._programs:
            self._programs[width] = RunPrograms(self._model, self._training, width=width)
        asked = work if isinstance(work, Distill) else _as_run(work, partition)
        programs = self._programs[width]
        if isinstance(asked, Growing) and not programs.trains(asked, partition):
            return NEVER
        threads = self._training.threads
        if isinstance(asked, Distill):
            return programs.program(asked, partition).memory.total_bytes(threads)
        cost = programs.cost(asked, partition)
        if cost is None:
            return NEVER
        needed = cost.total_bytes(threads)
        if self._recompute and (lighter := programs.cost(asked, partition, "recompute")) is not None:
            needed = min(needed, lighter.total_bytes(threads))
        if isinstance(work, Sublayers):
            needed -= round((1 - work.ratio) * self._state_bytes(cost.upload_bytes))
        return needed

    def _state_bytes(self, trained_bytes: int) -> int:
        """What the optimizer keeps of tensors of so many bytes: rows that are not trained need none of it."""
        optimizer = local_optimizer(self._training)
        item = ITEM_BYTES[optimizer.momentum_dtype] / ITEM_BYTES["float32"]
        return round(OPTIMIZERS[optimizer.name].states * trained_bytes * item)


def _as_run(work: Work, partition: Partition) -> Growing:
    """The run of units that needs what `work` needs: of the whole network, all of them."""
    if isinstance(work, Growing):
        return work
    last = work.last_unit if isinstance(work, Depth) else partition.blocks[-1].last_unit
    return Joint(first_unit=0, last_unit=last)
