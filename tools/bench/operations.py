"""Arithmetic of a training step, counted from its program's operations."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edge_runtime.export.ir.graph import Operation, Value

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


def floating_point_operations(operations: Iterable[Operation]) -> int:
    """Multiplications and additions of all matrix products (direct convolution, without recomputation)."""
    total = 0
    for operation in operations:
        if operation.operator in PRODUCTS:
            output, weight = (_value(operation, place) for place in PRODUCTS[operation.operator])
            total += 2 * math.prod(output.shape) * math.prod(weight.shape[1:])
        elif operation.operator in ATTENTION:
            total += ATTENTION[operation.operator] * 2 * math.prod(_sizes(operation)[:5])
        elif operation.operator == MATMUL:
            left, out = _value(operation, 0), _value(operation, None)
            turned = bool(operation.arguments[2])
            total += 2 * math.prod(out.shape) * left.shape[-2 if turned else -1]
    return total


def _sizes(operation: Operation) -> tuple[int, ...]:
    """Batch, heads, queries, keys, width and width of values of an attention: its first argument of whole numbers."""
    return next(argument for argument in operation.arguments if isinstance(argument, tuple))


def _value(operation: Operation, place: int | None) -> Value:
    value = operation.outputs[0] if place is None else operation.arguments[place]
    assert isinstance(value, Value)  # the operators' contract
    return value
