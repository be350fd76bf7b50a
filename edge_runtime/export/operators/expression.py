"""Functions of an element that have no kernel of their own: one kernel computes any formula of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.draws import share_of
from edge_runtime.export.ir.formula import ONE, ZERO, Formula, applied, formula, operand
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.dropout import drawn
from edge_runtime.export.operators.elementwise import MULTIPLY, arithmetic, arithmetic_step, capture_quotient, summed

X, Y = operand(0), operand(1)


def _truncated(x: Formula) -> Formula:
    return applied("choose", applied("greater", x, 0.0), applied("floor", x), -applied("floor", -x))


def _named(name: str) -> Formula:
    return applied(name, X)


OF_ONE: dict[str, Formula] = {
    "log2": _named("logarithm") * (1.0 / math.log(2.0)),
    "log10": _named("logarithm") * (1.0 / math.log(10.0)),
    "exp2": applied("exponential", X * math.log(2.0)),
    "log1p": _named("logarithm_of_one_more"),
    "expm1": _named("exponential_less_one"),
    "sin": _named("sine"),
    "cos": _named("cosine"),
    "tan": _named("tangent"),
    "asin": _named("arcsine"),
    "acos": _named("arccosine"),
    "atan": _named("arctangent"),
    "sinh": _named("hyperbolic_sine"),
    "cosh": _named("hyperbolic_cosine"),
    "asinh": _named("area_sine"),
    "acosh": _named("area_cosine"),
    "atanh": _named("area_tangent"),
    "erf": _named("error"),
    "erfc": _named("error_left"),
    "floor": _named("floor"),
    "ceil": -applied("floor", -X),
    "trunc": _truncated(X),
    "fix": _truncated(X),
    "frac": X - _truncated(X),
}
"""Functions of one tensor."""
OF_TWO: dict[str, Formula] = {
    "maximum": applied("larger", X, Y),
    "minimum": applied("smaller", X, Y),
    "fmax": applied("larger", X, Y),
    "fmin": applied("smaller", X, Y),
    "atan2": applied("angle", X, Y),
    "hypot": applied("square_root", X * X + Y * Y),
    "remainder": X - applied("floor", X / Y) * Y,
    "fmod": X - _truncated(X / Y) * Y,
    "xlogy": applied("choose", applied("equal", X, 0.0), 0.0, X * applied("logarithm", Y)),
    "floor_divide": applied("floor", X / Y),
}
"""Of two, or of a tensor and a number."""
_ROUNDED: dict[str, Formula] = {"floor": applied("floor", X / Y), "trunc": _truncated(X / Y)}


def _capture_one(call: CapturedNode) -> Layer:
    share = share_of(call.node)
    if share is not None:
        return drawn(call, share)
    return call.layer("expression", (call.activation("self"),), formula=OF_ONE[call.operator])


def _capture_two(call: CapturedNode) -> Layer:
    return of_two(call, OF_TWO[call.operator], "self", "other")


def of_two(call: CapturedNode, what: Formula, first: str, second: str) -> Layer:
    """A formula of two arguments, one of which may be a number."""
    inputs: list[str] = []
    places: dict[int, Formula] = {}
    for place, name in enumerate((first, second)):
        value = call.arguments[name]
        if isinstance(value, (int, float)):
            places[place] = formula(value)
        else:
            places[place] = operand(len(inputs))
            inputs.append(call.activation(name))
    return call.layer("expression", tuple(inputs), formula=_filled(what, places))


def _filled(what: Formula, places: dict[int, Formula]) -> Formula:
    if what.name == "operand":
        return places[int(what.value)]
    return Formula(what.name, tuple(_filled(part, places) for part in what.parts), what.value)


def _capture_round(call: CapturedNode) -> Layer:
    if call.arguments.get("decimals"):
        raise NotCovered("with decimals")
    return call.layer("expression", (call.activation("self"),), formula=_named("round"))


def _capture_nan_to_num(call: CapturedNode) -> Layer:
    most = torch.finfo(torch.float32).max
    given = (call.arguments[name] for name in ("nan", "posinf", "neginf"))
    nan, high, low = (
        default if value is None else float(value) for value, default in zip(given, (0.0, most, -most), strict=True)
    )
    finite = _replaced(math.inf, high, _replaced(-math.inf, low, X))
    return call.layer("expression", (call.activation("self"),), formula=_either(_same(X, X), finite, nan))


def _either(condition: Formula, there: Formula | float, otherwise: Formula | float) -> Formula:
    return applied("choose", condition, there, otherwise)


def _same(a: Formula, b: Formula | float) -> Formula:
    return applied("equal", a, b)


def _replaced(value: float, by: float, otherwise: Formula) -> Formula:
    return _either(_same(X, value), by, otherwise)


def _capture_quotient(call: CapturedNode) -> Layer:
    rounding = call.arguments.get("rounding_mode")
    return capture_quotient(call) if rounding is None else of_two(call, _ROUNDED[rounding], "self", "other")


def _capture_square(call: CapturedNode) -> Layer:
    """As a product."""
    x = call.activation("self")
    return arithmetic(call, MULTIPLY, x, x)


def _capture_power(call: CapturedNode) -> Layer:
    """Roots and reciprocals have kernels of their own, and small whole powers are products."""
    exponent = call.arguments.get("exponent")
    if not isinstance(exponent, (int, float)) or not isinstance(call.arguments["self"], torch.fx.Node):
        return of_two(call, _POWER, "self", "exponent")
    if exponent == 2:
        return _capture_square(call)
    if (named := _POWERS.get(exponent)) is not None:
        return call.layer("activation", (call.activation("self"),), activation=named, parameter=0.0)
    if exponent not in range(3, 9):
        return of_two(call, _POWER, "self", "exponent")
    x = y = call.activation("self")
    for _ in range(int(exponent) - 2):
        y = arithmetic_step(call, MULTIPLY, y, x, call.output_shape)
    return arithmetic(call, MULTIPLY, y, x)


_POWER = applied("power", X, Y)
_POWERS: dict[float, str] = {-1: "reciprocal", -0.5: "inverse_root", 0.5: "square_root"}


def _expression(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    what: Formula = layer.attributes["formula"]
    sources = tuple(values[name] for name in layer.inputs)

    def compute(*operands: Value) -> Value:
        return _computed(builder, what, operands, layer.shape, layer.module)

    y = builder.kept_or_derived(layer, sources, compute)

    def rule(gradient: Value) -> Pairs:
        pairs: Pairs = []
        for place, x in enumerate(sources):
            partial = what.derivative(place)
            if x not in builder.differentiable or partial == ZERO:
                continue
            read = sorted(partial.operands)
            places = {old: new for new, old in enumerate(read, start=1)}
            product = operand(0) * partial.moved(places) if partial != ONE else operand(0)
            operands = (gradient, *(builder.again(sources[old]) for old in read))
            whole = _computed(builder, product, operands, gradient.shape, f"{layer.module}.input_gradient")
            pairs.append((x, whole if x.shape == whole.shape else summed(builder, whole, None, 1.0, x.shape)))
        return pairs

    return builder.record(y, rule)


def _computed(
    builder: StepBuilder, what: Formula, operands: tuple[Value, ...], shape: tuple[int, ...], hint: str
) -> Value:
    y = builder.new(hint, shape)
    builder.graph.emit("expression", (what.code, *operands, *(None,) * (3 - len(operands))), (y,))
    return y


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    **dict.fromkeys(OF_ONE, _capture_one),
    **dict.fromkeys(OF_TWO, _capture_two),
    "round": _capture_round,
    "pow": _capture_power,
    "square": _capture_square,
    **dict.fromkeys(("div", "true_divide"), _capture_quotient),
    "nan_to_num": _capture_nan_to_num,
}
EMITTERS = {"expression": _expression}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"expression": ((0, 1), (0, 2), (0, 3))}
