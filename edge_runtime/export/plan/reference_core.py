"""Nanoseconds of an operation on a reference core, from which predictions of seconds are scaled to a device.

`PRICES` are measured: `python -m tools.bench.kernel_times --fit`, on one core with AVX-512 at about 3 GHz. They are the
mean of two machines, of AMD and of Intel, in the nanoseconds of the first.
"""

from __future__ import annotations

import math

from edge_runtime.export.ir.graph import Argument, Operation
from edge_runtime.export.plan.element_amounts import Amounts, by_elements, is_update
from edge_runtime.export.plan.kernel_amounts import (
    Convolution,
    by_products,
    of_convolution,
    of_depthwise,
    shape,
    transform_of,
)

PRICES: Amounts = {
    "activation bytes": 0.0913,
    "attention flop": 0.0143,
    "broadcast bytes": 0,
    "broadcast planes": 16.5,
    "broadcast sums bytes": 0.0324,
    "broadcast sums planes": 28.3,
    "calls": 300,
    "copies bytes": 0.166,
    "depthwise flop": 0.0499,
    "depthwise planes": 6.93,
    "direct flop": 0.00901,
    "direct pieces": 5.32e03,
    "direct sums": 0.32,
    "element bytes": 0.013,
    "four gradients": 0.458,
    "four inputs": 0.0779,
    "four outputs": 0.722,
    "layer statistics backward bytes": 0.15,
    "lines": 0,
    "loss bytes": 3.57,
    "normalization bytes": 0.0354,
    "normalization planes": 4.36,
    "packed columns": 32.7,
    "packed columns of points": 3.41,
    "packed weights": 0.724,
    "packed weights of points": 1.21,
    "points": 0.345,
    "pooling bytes": 0.311,
    "pooling planes": 67.7,
    "product flop": 0.0101,
    "product weights": 1.01,
    "read bytes": 0.13,
    "scores": 4.13,
    "statistics backward bytes": 0.0338,
    "statistics backward planes": 37.5,
    "statistics bytes": 0.0998,
    "statistics planes": 33,
    "strided gradients": 0.348,
    "strided inputs": 0.32,
    "strided lines": 4.63,
    "strided outputs": 0.65,
    "strided points": 2.31,
    "summed weights": 2.27,
    "sums bytes": 0.138,
    "sums planes": 0.604,
    "transformed weights": 0.384,
    "transposed inputs": 0.298,
    "transposed outputs": 0.437,
    "turned gradients": 0.705,
    "turned weights": 0.45,
    "two gradients": 0.636,
    "two inputs": 0.144,
    "two outputs": 0.288,
    "unpooling bytes": 0.328,
    "unpooling planes": 61,
    "update bytes": 0.0417,
    "updated elements": 0.773,
    "updated weights": 1.39,
    "waiting bytes": 0.043,
    "weight flop": 0.00971,
    "weight lines": 0.761,
    "weights again": 0.278,
    "winograd additions": 0.204,
    "winograd flop": 0.00986,
    "written": 0.691,
}
"""Nanoseconds of one of each amount of `kernel_amounts.py` and `element_amounts.py`, and of a call."""
CALL = "calls"
READ = "read bytes"
"""Of frozen weights, out of the file that the system has in memory."""
_FORWARD = ("conv2d", "conv2d_frozen")
_ATTENTION_PRODUCTS = {"attention": 2, "attention_backward": 5}


OF_WEIGHTS = frozenset(
    {
        "packed columns",
        "packed columns of points",
        "packed weights",
        "packed weights of points",
        "product weights",
        "summed weights",
        "transformed weights",
        "turned weights",
        "updated elements",
        "updated weights",
        "weights again",
    }
)
"""Amounts of what is done once with every weight, whatever the batch."""


def weights_nanoseconds(operation: Operation) -> float:
    """Of one call, the part of `nanoseconds` that goes over weights."""
    found = _amounts(operation)
    if is_update(operation.operator):
        return sum(PRICES[name] * amount for name, amount in found.items())
    return sum(PRICES[name] * amount for name, amount in found.items() if name in OF_WEIGHTS)


def reading_nanoseconds(operation: Operation) -> float:
    """Of what is read from the file of weights right before one call."""
    return PRICES[READ] * sum(value.bytes for value in operation.reads if value.role == "frozen")


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
