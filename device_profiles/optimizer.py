"""Optimizers as every side knows them: names, settings, usual rates, and how many numbers the device fills in.

A new optimizer is a row of `KINDS`, what the device fills in (`edge_runtime/device/prepare/hyperparameters.py`), a file
in `edge_runtime/export/optimizers`, and its kernel.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from device_profiles.contract import DType

OptimizerName = Literal["sgd", "adamw"]


class Kind(NamedTuple):
    """What is the same for every program with an optimizer of this name.

    Attributes:
        hyperparameters: numbers in the program's input of that name, without a proximal term (see `contract.py`).
        learning_rate: where none is asked for. What was measured to choose it stands in docs/training.md.
        distillation_rate: the same of a distillation, whose squared error grows with the square of a trained teacher's
            logits.
        sums_in_momentum: whether the gradients of micro-batches may be summed in its momentum.
        own: settings of `Optimizer` that belong to it alone.
    """

    hyperparameters: int
    learning_rate: float
    distillation_rate: float
    sums_in_momentum: bool
    own: tuple[str, ...]


KINDS: dict[OptimizerName, Kind] = {
    "sgd": Kind(4, 0.01, 1e-4, True, ("momentum", "nesterov", "momentum_dtype", "proximal")),
    "adamw": Kind(4, 3e-4, 3e-4, False, ("beta1", "beta2", "eps")),
}


class Optimizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Optimizer of a training program; the device fills its hyperparameters in for every execution.

    `momentum_dtype` is how the momentum is stored; it is computed with in float32. `beta1`, `beta2` and `eps` are
    AdamW's. `clip_norm` is the largest norm of all gradients together, 0 where they are not clipped. With `proximal`
    the gradient of every parameter gains mu (parameter - the one the training started from), FedProx's proximal term;
    mu is given at run time, and the start is read from the mapped weights.
    """

    name: OptimizerName
    momentum: float = 0.0
    weight_decay: float = 0.0
    momentum_dtype: DType = "float32"
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 0.0
    proximal: bool = False

    @property
    def sums_in_momentum(self) -> bool:
        """Whether the gradients of micro-batches can be summed in the momentum, which costs no memory.

        Else each gradient has a sum of its own, and the update waits for the last micro-batch.
        """
        return KINDS[self.name].sums_in_momentum and not self.nesterov and self.clip_norm == 0

    def hyperparameter_count(self, micro_batches: int) -> int:
        """Numbers in the hyperparameters of a program whose steps are made of so many executions."""
        apart = micro_batches > 1 and not self.sums_in_momentum
        return KINDS[self.name].hyperparameters + self.proximal + apart
