"""Arithmetic: two tensors with broadcasting, or a tensor and a number; and the optimizer's updates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.activation import activation_gradient

ADD, SUBTRACT, MULTIPLY, DIVIDE, SELECT, GREATER, EQUAL = range(7)
"""Number of each operation in a program; `csrc/kernels/elementwise/arithmetic.cpp` has the same."""
COMPARISONS = (GREATER, EQUAL)
"""They give 1 or 0, and no gradient."""


def _capture_pair(operation: int, number: Callable[[float], tuple[float, float]]) -> Callable[[CapturedNode], Layer]:
    """The rule of an operation; `number` gives factor and offset where the other operand is a number."""

    def capture(call: CapturedNode) -> Layer:
        other = call.arguments["other"]
        if call.arguments.get("alpha", 1) != 1:
            raise NotCovered("with a factor alpha")
        constant = call.constant("other")
        if constant is not None and constant.numel() == 1 and call.shape("self") == call.output_shape:
            other = constant.item()
        if not isinstance(other, torch.fx.Node):
            factor, offset = number(float(other))
            return call.layer("affine", (call.activation("self"),), factor=factor, offset=offset)
        return _capture_tensors(call, operation)

    return capture


capture_quotient = _capture_pair(DIVIDE, lambda number: (1.0 / number, 0.0))
"""`div` without rounding (see `expression.py`)."""


def _capture_tensors(call: CapturedNode, operation: int) -> Layer:
    """Two activations, or one and a tensor of the model: a parameter, or a buffer that stays as it is."""
    names = ("self", "other")
    of_model = tuple(call.is_tensor(name) for name in names)
    if all(of_model):  # computed in the program, and differentiated as activations are
        return arithmetic(call, operation, call.activation("self"), call.activation("other"))
    inputs = tuple(call.activation(name) for name in names if not call.is_tensor(name))
    if operation == ADD and len(inputs) == 2 and call.shape("self") == call.shape("other"):
        return call.layer("add", inputs, activation="none")
    tensors = tuple(_tensor(call, name) for name in names if call.is_tensor(name))
    return call.layer("arithmetic", inputs, tensors, operation=operation, of_model=of_model)


def _tensor(call: CapturedNode, name: str) -> str | None:
    value = call.constant(name)
    return call.tensor(name) if value is None else call.keep_constant(name, call.alike(value))


def arithmetic(call: CapturedNode, operation: int, a: str, b: str) -> Layer:
    """The layer of a call that combines two activations."""
    return call.layer("arithmetic", (a, b), operation=operation, of_model=(False, False))


def arithmetic_step(call: CapturedNode, operation: int, a: str, b: str, shape: tuple[int, ...]) -> str:
    """The same in front of the call's own layer."""
    return call.step("arithmetic", (a, b), shape, operation=operation, of_model=(False, False))


def as_number(call: CapturedNode, name: str) -> str:
    """An argument as an activation of numbers, tokens as well."""
    return as_number_of(call, call.arguments[name], name)


def as_number_of(call: CapturedNode, value: object, name: str) -> str:
    """The same of an argument's part."""
    x = call.activation_of(value, name)
    if x not in call.whole:
        return x
    assert isinstance(value, torch.fx.Node)
    return call.step("to_float", (x,), tuple(value.meta["val"].shape))


def _capture_addition(
    number: Callable[[float], tuple[float, float]], operation: int
) -> Callable[[CapturedNode], Layer]:
    """`add` and `sub`, whose second operand may have a factor `alpha`."""
    plain = _capture_pair(operation, number)

    def capture(call: CapturedNode) -> Layer:
        alpha, other = call.arguments.get("alpha", 1), call.arguments["other"]
        if alpha == 1 or not isinstance(other, torch.fx.Node):
            return plain(call)
        scaled = call.step("affine", (call.activation("other"),), call.shape("other"), factor=float(alpha), offset=0.0)
        return arithmetic(call, operation, call.activation("self"), scaled)

    return capture


def _capture_fused(operation: int) -> Callable[[CapturedNode], Layer]:
    """`addcmul` and `addcdiv`: self + value * (tensor1 by tensor2)."""

    def capture(call: CapturedNode) -> Layer:
        first, second = (call.activation(name) for name in ("tensor1", "tensor2"))
        shape = tuple(np.broadcast_shapes(call.shape("tensor1"), call.shape("tensor2")))
        product = arithmetic_step(call, operation, first, second, shape)
        value = float(call.arguments["value"])
        if value != 1.0:
            product = call.step("affine", (product,), shape, factor=value, offset=0.0)
        return arithmetic(call, ADD, call.activation("self"), product)

    return capture


def _capture_negation(call: CapturedNode) -> Layer:
    return call.layer("affine", (call.activation("self"),), factor=-1.0, offset=0.0)


def _add(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    relu = layer.attributes["activation"] == "relu"

    def compute(a: Value, b: Value) -> Value:
        y = builder.new("sum", layer.shape)
        builder.graph.emit("add", (a, b, relu), (y,))
        return y

    a, b = values[layer.inputs[0]], values[layer.inputs[1]]
    y = builder.kept_or_derived(layer, (a, b), compute)

    def rule(gradient: Value) -> Pairs:
        if relu:
            # ReLU lets the same elements through whether it is asked by its input or by its output.
            gradient = activation_gradient(builder, layer, gradient, builder.again(y))
        return [(a, gradient), (b, gradient)]

    return builder.record(y, rule)


def _affine(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    factor, offset = float(layer.attributes["factor"]), float(layer.attributes["offset"])

    def compute(x: Value) -> Value:
        return affine(builder, x, factor, offset)

    x = values[layer.inputs[0]]
    return builder.record(
        builder.derived((x,), compute), lambda gradient: [(x, affine(builder, gradient, factor, 0.0))]
    )


def affine(builder: StepBuilder, x: Value, factor: float, offset: float) -> Value:
    """x * factor + offset."""
    y = builder.new(f"{x.name}.scaled", x.shape)
    builder.graph.emit("affine", (x, factor, offset), (y,))
    return y


def combined(builder: StepBuilder, a: Value, b: Value, operation: int, shape: tuple[int, ...]) -> Value:
    """`a` and `b`, broadcast to `shape`."""
    y = builder.new(f"{a.name}.combined", shape)
    builder.graph.emit("arithmetic", (a, b, operation), (y,))
    return y


def summed(builder: StepBuilder, x: Value, factors: Value | None, factor: float, shape: tuple[int, ...]) -> Value:
    """Sum of x * factors * factor over the dimensions that `shape` does not have, or has with one element."""
    y = builder.new(f"{x.name}.summed", shape)
    builder.graph.emit("sum_to", (x, factors, factor), (y,))
    return y


def _arithmetic(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    operation, of_model = int(layer.attributes["operation"]), layer.attributes["of_model"]
    left, right = _operands(builder, layer, values)

    def compute(a: Value, b: Value) -> Value:
        return combined(builder, a, b, operation, layer.shape)

    y = builder.kept_or_derived(layer, (left, right), compute)

    def rule(gradient: Value) -> Pairs:
        pairs: Pairs = []
        trained = []
        if operation in COMPARISONS:
            return pairs
        # A sum first: the other gradient may then take over the incoming one's bytes.
        operands = sorted(((left, right, True), (right, left, False)), key=lambda operand: operand[0].bytes)
        for operand, other, first in operands:
            if operation == SELECT and not first:  # only says which elements there are
                continue
            # A parameter that is read as an activation has a rule of its own (see `view.py`).
            if of_model[not first] and builder.trains(operand):
                result = _operand_gradient(builder, gradient, operand, other, y, operation, first=first)
                trained.append((operand, result))
            elif operand in builder.differentiable:
                result = _operand_gradient(builder, gradient, operand, other, y, operation, first=first)
                pairs.append((operand, result))
        for parameter, result in trained:
            builder.update(parameter, result)
        return pairs

    return builder.record(y, rule)


def _operands(builder: StepBuilder, layer: Layer, values: Values) -> tuple[Value, Value]:
    activations, tensors = iter(layer.inputs), iter(layer.tensors)
    found = []
    for of_model in layer.attributes["of_model"]:
        if not of_model:
            found.append(values[next(activations)])
            continue
        name = next(tensors)
        assert name is not None
        value = builder.weight(name)
        assert value is not None
        found.append(value)
    return found[0], found[1]


def _operand_gradient(
    builder: StepBuilder, gradient: Value, operand: Value, other: Value, y: Value, operation: int, *, first: bool
) -> Value:
    """The gradient of one operand, summed over the dimensions along which it was repeated."""
    whole = operand.shape == gradient.shape
    factor = -1.0 if operation in (SUBTRACT, DIVIDE) and not first else 1.0
    if operation in (ADD, SUBTRACT):
        if whole:
            return gradient if factor == 1.0 else affine(builder, gradient, factor, 0.0)
        return summed(builder, gradient, None, factor, operand.shape)
    if operation == SELECT:
        chosen = combined(builder, gradient, builder.again(other), SELECT, gradient.shape)
        return chosen if whole else summed(builder, chosen, None, 1.0, operand.shape)
    if operation == MULTIPLY:
        factors = builder.again(other)
    elif first:
        quotient = combined(builder, gradient, builder.again(other), DIVIDE, gradient.shape)
        return quotient if whole else summed(builder, quotient, None, 1.0, operand.shape)
    else:
        factors = combined(builder, builder.again(y), builder.again(operand), DIVIDE, gradient.shape)
    if not whole:
        return summed(builder, gradient, factors, factor, operand.shape)
    product = combined(builder, gradient, factors, MULTIPLY, gradient.shape)
    return product if factor == 1.0 else affine(builder, product, factor, 0.0)


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    "add": _capture_addition(lambda number: (1.0, number), ADD),
    "sub": _capture_addition(lambda number: (1.0, -number), SUBTRACT),
    "rsub": _capture_pair(SUBTRACT, lambda number: (-1.0, number)),
    "mul": _capture_pair(MULTIPLY, lambda number: (number, 0.0)),
    "neg": _capture_negation,
    "addcmul": _capture_fused(MULTIPLY),
    "addcdiv": _capture_fused(DIVIDE),
}
EMITTERS = {"add": _add, "affine": _affine, "arithmetic": _arithmetic}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {
    "scale_by": ((0, 0),),
    "add": ((0, 0), (0, 1)),
    "affine": ((0, 0),),
    "arithmetic": ((0, 0), (0, 1)),
}
