"""Arithmetic and bytes of a step, counted from its program's operations."""

from __future__ import annotations

import math
from collections.abc import Iterable

from device_profiles.loads import NO_LOAD, Family, Load, Loads
from edge_runtime.export.ir.graph import END_UNLESS, Operation, StepGraph, Value
from edge_runtime.export.plan.reference_core import (
    is_transformed,
    nanoseconds,
    problem_of,
    reading_nanoseconds,
    weights_nanoseconds,
)

PRODUCTS = {
    # operator: where the tensor of the layer's output shape stands (argument, or None for the first output), and the
    # same for the tensor of the weight's shape
    "conv2d": (None, 1),
    "conv2d_frozen": (None, 1),
    "conv2d_input_grad": (0, 1),
    "conv2d_weight_grad": (0, None),
    "conv2d_weight_grad_sgd": (0, None),
    "linear": (None, 1),
    "linear_input_grad": (0, 1),
    "linear_weight_grad": (0, None),
    "linear_weight_grad_sgd": (0, None),
}
"""Operators whose work is a product with a weight. With those below they are all that multiply matrices; everything
else is element by element, and counted as nothing."""


ATTENTION = {"attention": 2, "attention_backward": 5}
"""How many products attention makes, each of queries by keys by the heads' width."""
MATMUL = "matmul"
_LANES = 16
"""Channels that a kernel computes at once (`csrc/kernels/matrix/gemm.h`): the last of a layer are filled up."""


def floating_point_operations(operations: Iterable[Operation]) -> int:
    """Multiplications and additions of all matrix products (direct convolution, without recomputation)."""
    return sum(_flop(operation) for operation in operations)


def loads_of(graph: StepGraph, *, micro_batches: int = 1) -> Loads:
    """The loads of a step of `micro_batches` executions; what the last of them alone does is counted once."""
    loads: Loads = {}
    times = micro_batches
    for operation in graph.operations:
        if operation.operator == END_UNLESS:
            times = 1
            continue
        family = family_of(operation)
        moved = sum(value.bytes for value in (*operation.reads, *operation.writes))
        read = round(reading_nanoseconds(operation))
        load = Load(
            calls=1,
            flop=_executed(operation),
            moved_bytes=moved,
            reference_ns=round(nanoseconds(operation)) + read,
            weights_ns=round(weights_nanoseconds(operation)) + read,
        )
        loads[family] = loads.get(family, NO_LOAD) + load * times
    return loads


def family_of(operation: Operation) -> Family:
    """Of the kernel of an operation."""
    if operation.operator in ATTENTION:
        return "attention"
    if operation.operator == MATMUL or operation.operator.startswith("linear"):
        return "linear"
    if operation.operator not in PRODUCTS:
        return "elements"
    problem = problem_of(operation)
    if problem.is_depthwise:
        return "depthwise"
    if math.prod(problem.taps) == 1:
        return "pointwise"
    return "winograd" if is_transformed(operation) else "convolution"


def _flop(operation: Operation) -> int:
    if operation.operator in PRODUCTS:
        output, weight = (_value(operation, place) for place in PRODUCTS[operation.operator])
        return 2 * math.prod(output.shape) * math.prod(weight.shape[1:])
    if operation.operator in ATTENTION:
        return ATTENTION[operation.operator] * 2 * math.prod(_sizes(operation)[:5])
    if operation.operator == MATMUL:
        left, out = _value(operation, 0), _value(operation, None)
        turned = bool(operation.arguments[2])
        return 2 * math.prod(out.shape) * left.shape[-2 if turned else -1]
    return 0


def _executed(operation: Operation) -> int:
    """The same with the channels that a product has for its columns filled up to whole lanes, as kernels do."""
    flop = _flop(operation)
    if operation.operator not in PRODUCTS or family_of(operation) == "depthwise":
        return flop
    weight = _value(operation, PRODUCTS[operation.operator][1])
    columns = weight.shape[1] if operation.operator.endswith("_input_grad") else weight.shape[0]
    return flop // columns * (-(-columns // _LANES) * _LANES)


def _sizes(operation: Operation) -> tuple[int, ...]:
    """Batch, heads, queries, keys, width and width of values of an attention: its first argument of whole numbers."""
    return next(argument for argument in operation.arguments if isinstance(argument, tuple))


def _value(operation: Operation, place: int | None) -> Value:
    value = operation.outputs[0] if place is None else operation.arguments[place]
    assert isinstance(value, Value)  # the operators' contract
    return value
