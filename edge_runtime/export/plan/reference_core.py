"""Nanoseconds of an operation on a reference core, from which predictions of seconds are scaled to a device.

`PRICES` are measured: `python -m tools.bench.kernel_times --fit`, on one core with AVX-512 at about 3 GHz.
"""

from __future__ import annotations

import math

from edge_runtime.export.ir.graph import Argument, Operation
from edge_runtime.export.plan.kernel_amounts import (
    Amounts,
    Convolution,
    by_elements,
    by_products,
    of_convolution,
    of_depthwise,
    shape,
    transform_of,
)

PRICES: Amounts = {
    "activation bytes": 0.082,
    "attention flop": 0.017,
    "broadcast bytes": 0,
    "broadcast planes": 24.6,
    "broadcast sums bytes": 0.0425,
    "broadcast sums planes": 37.9,
    "calls": 300,
    "copies bytes": 0.191,
    "depthwise flop": 0.0448,
    "depthwise planes": 12.1,
    "direct flop": 0.00869,
    "direct pieces": 5.04e03,
    "direct sums": 0.184,
    "element bytes": 0.0174,
    "four gradients": 0.529,
    "four inputs": 0.0288,
    "four outputs": 0.785,
    "layer statistics backward bytes": 0.169,
    "lines": 0,
    "loss bytes": 3.71,
    "normalization bytes": 0.035,
    "normalization planes": 5.72,
    "packed columns": 29,
    "packed columns of points": 3.89,
    "packed weights": 0.944,
    "packed weights of points": 0.958,
    "points": 0.345,
    "pooling bytes": 1.31,
    "product flop": 0.0091,
    "product weights": 0.746,
    "scores": 2.98,
    "statistics backward bytes": 0.0366,
    "statistics backward planes": 44.6,
    "statistics bytes": 0.104,
    "statistics planes": 30.2,
    "strided gradients": 0.439,
    "strided inputs": 0.247,
    "strided lines": 5.01,
    "strided outputs": 0.733,
    "strided points": 2.64,
    "summed weights": 2.4,
    "sums bytes": 0.21,
    "sums planes": 0,
    "transformed weights": 0.365,
    "transposed inputs": 0.203,
    "transposed outputs": 0.414,
    "turned gradients": 0.922,
    "turned weights": 0.513,
    "two gradients": 0.962,
    "two inputs": 0.0667,
    "two outputs": 0.325,
    "unpooling bytes": 0.819,
    "unpooling planes": 34,
    "updated elements": 1.1,
    "updated weights": 1.29,
    "waiting bytes": 0.0446,
    "weight flop": 0.00731,
    "weight lines": 1.03,
    "weights again": 0.282,
    "winograd additions": 0.217,
    "winograd flop": 0.00986,
    "written": 0.714,
}
"""Nanoseconds of one of each amount of `kernel_amounts.py`, and of a call."""
CALL = "calls"
_FORWARD = ("conv2d", "conv2d_frozen")
_ATTENTION_PRODUCTS = {"attention": 2, "attention_backward": 5}


def nanoseconds(operation: Operation) -> float:
    """Of one call."""
    return sum(PRICES[name] * amount for name, amount in amounts(operation).items())


def amounts(operation: Operation) -> Amounts:
    """All that takes time."""
    return {CALL: 1.0} | _amounts(operation)


def _amounts(operation: Operation) -> Amounts:
    operator, arguments = operation.operator, operation.arguments
    if operator.startswith("conv2d"):
        return _convolution(operation)
    if operator.startswith("linear"):
        return _linear(operation)
    if operator in _ATTENTION_PRODUCTS:
        batch, heads, queries, keys, width, *_ = _tuples(arguments)[0]
        scores = batch * heads * queries * keys
        return {"attention flop": 2.0 * scores * width * _ATTENTION_PRODUCTS[operator], "scores": float(scores)}
    if operator == "matmul":
        out, left, right = shape(operation.outputs[0]), shape(arguments[0]), shape(arguments[1])
        depth = left[-2 if arguments[2] else -1]
        return by_products(out[-1], math.prod(out[:-1]), depth, math.prod(right))
    return by_elements(operation)


def _linear(operation: Operation) -> Amounts:
    """The layer's output, or its gradient, and the weight stand where the operator says (`device_profiles`' table)."""
    arguments = operation.arguments
    if operation.operator.startswith("linear_weight_grad"):
        output, (columns, depth) = shape(arguments[0]), (shape(arguments[0])[-1], shape(arguments[1])[-1])
        rows = math.prod(output[:-1])
        return by_products(depth, columns, rows, columns * depth) | {"updated elements": float(columns * depth)}
    weight = shape(arguments[1])
    if operation.operator == "linear_input_grad":
        rows = math.prod(shape(arguments[0])[:-1])
        return by_products(weight[1], rows, weight[0], math.prod(weight))
    rows = math.prod(shape(operation.outputs[0])[:-1])
    return by_products(weight[0], rows, weight[1], math.prod(weight))


def _convolution(operation: Operation) -> Amounts:
    problem = problem_of(operation)
    if problem.is_depthwise:
        return of_depthwise(problem)
    return of_convolution(problem, forward=operation.operator in _FORWARD)


def is_transformed(operation: Operation) -> bool:
    """Whether a convolution's kernel takes Winograd's way."""
    return transform_of(problem_of(operation), forward=operation.operator in _FORWARD) is not None


def problem_of(operation: Operation) -> Convolution:
    """A convolution's operation as the problem that its kernel solves."""
    operator, arguments = operation.operator, operation.arguments
    places = [i for i, argument in enumerate(arguments) if isinstance(argument, tuple)][:3]
    stride, padding, dilation = (_pair(arguments[place]) for place in places)
    groups = arguments[places[2] + 1]
    assert isinstance(groups, int)  # the operators' contract
    of_weight = operator.startswith("conv2d_weight_grad")
    turned = operator == "conv2d_input_grad"
    layer_output = shape(operation.outputs[0] if operator in _FORWARD else arguments[0])
    result = shape(operation.outputs[0])
    weight = next(s for s in map(shape, operation.writes) if len(s) >= 3) if of_weight else shape(arguments[1])
    outputs, channels = weight[0] // groups, weight[1]
    grid = layer_output[2:]
    if turned:
        outputs, channels = channels, outputs
        taps = _pair(weight[2:])
        # With stride 2, and a kernel that has a transform for it, the grid is that of the inputs.
        if stride == (1, 1) or (taps == (3, 3) and stride == (2, 2) and padding == (1, 1)):
            grid = result[2:]
    return Convolution(
        batch=layer_output[0],
        groups=groups,
        channels=channels,
        outputs=outputs,
        taps=_pair(weight[2:]),
        stride=stride,
        dilation=dilation,
        padding=padding,
        grid=_pair(grid),
        written=math.prod(result) // groups,
        weights_turned=turned,
        of_weight=of_weight,
    )


def _pair(sizes: Argument) -> tuple[int, int]:
    """Height and width; what has one dimension is one high."""
    assert isinstance(sizes, tuple)  # the operators' contract
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _tuples(arguments: tuple[Argument, ...]) -> list[tuple[int, ...]]:
    return [argument for argument in arguments if isinstance(argument, tuple)]
