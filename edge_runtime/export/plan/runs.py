"""Runs of units: the training step of any of them behind a frozen prefix, built and planned."""

from __future__ import annotations

from dataclasses import dataclass, field

from device_profiles.manifest import Loss, Optimizer
from device_profiles.work import Growing
from edge_runtime.export.cut.missing import StandIn
from edge_runtime.export.cut.units import UnitLayers
from edge_runtime.export.ir.graph import StepGraph
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.optimizers import optimizer_of
from edge_runtime.export.passes.narrow import narrow_frozen
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.variants import Build, Planned, fewest_bytes
from edge_runtime.export.step.train_step import StepVariant, build_train_step, output_module


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingChoices:
    """What an export asks of its training programs.

    Attributes:
        optimizer: compiled into them.
        loss: what they minimise.
        micro_batches: executions that make up one step.
        recompute_bytes: compute layers again until the arena is no larger than this; None keeps them all.
        joint: also the steps that train runs of blocks together.
        works: the training steps to write, each of a run of units that ends with a block, or of the output module
            alone; None for that of every block.
    """

    optimizer: Optimizer
    loss: Loss = field(default_factory=Loss)
    micro_batches: int = 1
    recompute_bytes: int | None = None
    joint: bool = False
    works: tuple[Growing, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Units `first_unit` to `last_unit` (0-based, both included), trained with an output module behind them.

    `stand_ins` take the place of the units behind, the model's own head follows. A run with no units, whose
    `first_unit` is `last_unit` + 1, is the output module alone.
    """

    first_unit: int
    last_unit: int
    stand_ins: tuple[StandIn, ...] = ()

    def units_of(self, source: BlockModel) -> tuple[UnitLayers, ...]:
        """The units that it trains."""
        return source.cut.units[self.first_unit : self.last_unit + 1]


def step_of(source: BlockModel, run: Run, choices: TrainingChoices) -> Build:
    """What builds the training step of `run` in any variant."""
    tensor_shapes = source.own_shapes | {stand_in.name: stand_in.weight_shape for stand_in in run.stand_ins}

    def build(variant: StepVariant) -> StepGraph:
        graph = build_train_step(
            prefix=source.cut.units[: run.first_unit],
            active=run.units_of(source),
            stand_ins=run.stand_ins,
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=tensor_shapes,
            optimizer=optimizer_of(choices.optimizer, choices.micro_batches),
            variant=variant,
            loss=choices.loss,
            positions=source.positions,
            input_dtype=source.input_dtype,
            fixed=source.fixed,
            aliases=source.aliases,
        )
        return narrow_frozen(graph, source.narrow)

    return build


def checkpoints_of(source: BlockModel, run: Run) -> frozenset[str]:
    """Outputs that are worth keeping when all others are computed again: those of the run's units."""
    return frozenset(unit.output for unit in run.units_of(source))


def plan_run(
    source: BlockModel, run: Run, choices: TrainingChoices, *, block: int, cached_prefix: bool = False
) -> Planned:
    """The step of `run` as an export plans it; raises UsageError, naming `block`, where it cannot become that small."""
    return fewest_bytes(
        step_of(source, run, choices),
        StepVariant(cached_prefix=cached_prefix),
        batch=source.batch,
        block=block,
        recompute_bytes=choices.recompute_bytes,
        checkpoints=checkpoints_of(source, run),
    )


def trains_apart(source: BlockModel, run: Run) -> bool:
    """Whether no tensor that the run trains is read by its prefix (see `cut/tied.py`)."""
    behind = output_module(run.stand_ins, source.cut.head)
    trained = _tensors([layer for unit in run.units_of(source) for layer in unit.layers] + behind)
    before = _tensors([layer for unit in source.cut.units[: run.first_unit] for layer in unit.layers])
    return not (trained & before) - source.fixed


def _tensors(layers: list[Layer]) -> set[str]:
    return {name for layer in layers for name in layer.tensors if name is not None}
