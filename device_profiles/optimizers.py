"""The optimizers by name: what manifests, the exporter's options and the device have to know of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OptimizerName = Literal["sgd", "adamw"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerKind:
    """One optimizer; what its update computes stands in `edge_runtime/export/optimizers`.

    Attributes:
        title: as a sentence names it.
        hyperparameters: numbers that the device fills in for every execution, without a proximal term.
        learning_rate: where none is asked for. What was measured to choose it stands in docs/training.md.
        distillation_rate: the same of a distillation, whose squared error grows with the square of a trained
            teacher's logits.
        options: of `profl-edge export`, those that no other optimizer takes.
        settings: those of a program's optimizer (and of a fleet file) that no other takes.
        states: tensors that it keeps for each parameter.
        sums_in_momentum: whether it can sum the gradients of micro-batches in its momentum.
        corrects_bias: whether two of its hyperparameters follow from the number of the step.
    """

    title: str
    hyperparameters: int
    learning_rate: float
    distillation_rate: float
    options: tuple[str, ...]
    settings: tuple[str, ...]
    states: int = 1
    sums_in_momentum: bool = False
    corrects_bias: bool = False


OPTIMIZERS: dict[OptimizerName, OptimizerKind] = {
    "sgd": OptimizerKind(
        title="SGD",
        hyperparameters=4,
        learning_rate=0.005,
        distillation_rate=1e-4,
        options=("momentum",),
        settings=("momentum", "nesterov", "momentum_dtype", "proximal"),
        sums_in_momentum=True,
    ),
    "adamw": OptimizerKind(
        title="AdamW",
        hyperparameters=4,
        learning_rate=3e-4,
        distillation_rate=3e-4,
        options=("betas", "eps"),
        settings=("beta1", "beta2", "eps"),
        states=2,
        corrects_bias=True,
    ),
}
