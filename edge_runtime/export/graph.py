"""The training step as a list of operations over values, from which memory is planned and a program written.

A step is small (some hundred operations) and its order is what decides the peak, so it is kept as data of our own
rather than as a traced PyTorch graph: every operation is one kernel of the `profl` namespace, its arguments stand in
the kernel's order, and which output may overwrite which input is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from device_profiles.contract import DType

ValueRole = Literal[
    "input", "frozen", "parameter", "running_statistic", "optimizer_state", "gradient", "activation", "temporary"
]
PERSISTENT_ROLES = frozenset({"parameter", "running_statistic", "optimizer_state"})
EXTERNAL_ROLES = frozenset({"input", "frozen"})

Argument = "Value | None | bool | int | float | tuple[int, ...]"


@dataclass(eq=False, slots=True)
class Value:
    """One tensor. Values with the same `storage` share bytes (a reshape, an update in place)."""

    name: str
    shape: tuple[int, ...]
    role: ValueRole
    dtype: DType = "float32"
    storage: Value | None = None

    @property
    def root(self) -> Value:
        """The value whose bytes this one uses; itself when it has its own."""
        value = self
        while value.storage is not None:
            value = value.storage
        return value

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * {"float32": 4, "int64": 8}[self.dtype]


@dataclass(eq=False, slots=True)
class Operation:
    """One kernel call: `profl::<operator>.out(*arguments, *outputs)`."""

    operator: str
    arguments: tuple[Value | bool | int | float | tuple[int, ...] | None, ...]
    outputs: tuple[Value | None, ...]

    @property
    def reads(self) -> list[Value]:
        """Values among the arguments."""
        return [a for a in self.arguments if isinstance(a, Value)]

    @property
    def writes(self) -> list[Value]:
        """Outputs that are there."""
        return [o for o in self.outputs if o is not None]


@dataclass(eq=False, slots=True)
class StepGraph:
    """Operations in execution order; `inputs` in the program's order, `state` the mutable buffers."""

    inputs: list[Value] = field(default_factory=list)
    state: list[Value] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    prefix_operations: int = 0

    def emit(
        self,
        operator: str,
        arguments: tuple[Value | bool | int | float | tuple[int, ...] | None, ...],
        outputs: tuple[Value | None, ...],
    ) -> None:
        """Append one operation."""
        self.operations.append(Operation(operator, arguments, outputs))
