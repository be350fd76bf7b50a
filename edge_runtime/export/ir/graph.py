"""The training step as a list of operations over values, from which memory is planned and a program written.

A step is small (some hundred operations) and its order is what decides the peak, so it is kept as data of our own
rather than as a traced PyTorch graph: every operation is one kernel of the `profl` namespace, its arguments stand in
the kernel's order, and which output may overwrite which input is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from device_profiles.contract import ITEM_BYTES, DType

ValueRole = Literal[
    "data",
    "input",
    "frozen",
    "parameter",
    "running_statistic",
    "optimizer_state",
    "gradient_sum",
    "gradient",
    "activation",
    "temporary",
]
PERSISTENT_ROLES = frozenset({"parameter", "running_statistic", "optimizer_state", "gradient_sum"})
EXTERNAL_ROLES = frozenset({"input", "frozen"})

ElementType = DType | Literal["bool"]
"""Booleans are results of operations only, never inputs or state."""
_BOOL_BYTES = 1

END_UNLESS = "end_unless"
"""The operation that is no kernel: it ends the execution unless its argument, a boolean, is true."""


@dataclass(eq=False, slots=True)
class Value:
    """One tensor. Values with the same `storage` share bytes (a reshape, some rows, an update in place).

    A value with `storage` begins `storage_offset` bytes behind the begin of it.
    """

    name: str
    shape: tuple[int, ...]
    role: ValueRole
    dtype: ElementType = "float32"
    storage: Value | None = None
    storage_offset: int = 0

    @property
    def root(self) -> Value:
        """The value whose bytes this one uses; itself when it has its own."""
        value = self
        while value.storage is not None:
            value = value.storage
        return value

    @property
    def offset(self) -> int:
        """Bytes from the begin of `root` to this value."""
        value, total = self, 0
        while value.storage is not None:
            total += value.storage_offset
            value = value.storage
        return total

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * (_BOOL_BYTES if self.dtype == "bool" else ITEM_BYTES[self.dtype])

    def updated(self) -> Value:
        """The value after an update in place."""
        return Value(f"{self.name}.new", self.shape, self.role, self.dtype, storage=self)

    def rows(self, first: int, count: int) -> Value:
        """Rows [first, first + count) along the first dimension, as the same bytes."""
        row_bytes = self.bytes // self.shape[0]
        return Value(
            f"{self.name}[{first}:{first + count}]",
            (count, *self.shape[1:]),
            self.role,
            self.dtype,
            storage=self,
            storage_offset=first * row_bytes,
        )


Pairs = list[tuple[Value, Value]]
"""(value, its gradient)."""

Argument = Value | bool | int | float | tuple[int, ...] | None


@dataclass(eq=False, slots=True)
class Operation:
    """One kernel call, `profl::<operator>.out(*arguments, *outputs)`, or END_UNLESS."""

    operator: str
    arguments: tuple[Argument, ...]
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
    """Operations in execution order.

    `data` lies in the arena and is written before the first operation; `inputs` lie outside, in the program's order;
    `state` are the mutable buffers; `kept` names the layers whose outputs the backward pass finds as they were,
    `recomputed` those that it computes again although it could have kept them.
    """

    data: list[Value] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    state: list[Value] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    recomputed: list[str] = field(default_factory=list)
    prefix_operations: int = 0

    def emit(
        self,
        operator: str,
        arguments: tuple[Argument, ...],
        outputs: tuple[Value | None, ...],
    ) -> None:
        """Append one operation."""
        self.operations.append(Operation(operator, arguments, outputs))
