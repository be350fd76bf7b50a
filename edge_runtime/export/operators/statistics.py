"""Variances, norms and what divides by them, made of sums, products and roots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.elementwise import (
    ADD,
    DIVIDE,
    MULTIPLY,
    SUBTRACT,
    arithmetic,
    arithmetic_step,
)
from edge_runtime.export.operators.selection import maxima

Shape = tuple[int, ...]


def _dims(call: CapturedNode, shape: Shape, given: Sequence[int] | int | None) -> tuple[int, ...]:
    """The dimensions that a result is over; raises NotCovered where they are those of the examples."""
    if given is None or given == []:
        given = range(len(shape))
    dims = sorted(d % len(shape) for d in ([given] if isinstance(given, int) else given))
    if call.over_examples("self", dims):
        raise NotCovered("over the batch")
    return tuple(dims)


def _kept(shape: Shape, dims: tuple[int, ...]) -> Shape:
    return tuple(1 if d in dims else extent for d, extent in enumerate(shape))


def _sum(call: CapturedNode, x: str, shape: Shape, dims: tuple[int, ...], factor: float = 1.0) -> str:
    """Step to the sums over `dims`, which stay with one element."""
    kept = _kept(shape, dims)
    return call.step("reduce", (x,), kept, kept=kept, factor=factor, over_first=0 in dims)


def _function(call: CapturedNode, name: str, x: str, shape: Shape, parameter: float = 0.0) -> str:
    return call.step("activation", (x,), shape, activation=name, parameter=parameter)


def _capture_variance(*, root: bool) -> Callable[[CapturedNode], Layer]:
    """`var`, `std`, and either part of `var_mean` and `std_mean`."""

    def capture(call: CapturedNode) -> Layer:
        shape = call.shape("self")
        dims = _dims(call, shape, call.arguments.get("dim"))
        kept, count = _kept(shape, dims), math.prod(shape[d] for d in dims)
        x = call.activation("self")
        mean = _sum(call, x, shape, dims, 1.0 / count)
        if call.index == 1:
            return call.layer("reshape", (mean,))
        correction = call.arguments.get("correction", int(call.arguments.get("unbiased", True)))
        left = count - float(1 if correction is None else correction)
        if left <= 0:
            raise NotCovered("of fewer elements than it is corrected by")
        apart = arithmetic_step(call, SUBTRACT, x, mean, shape)
        squares = arithmetic_step(call, MULTIPLY, apart, apart, shape)
        variance = _sum(call, squares, shape, dims, 1.0 / left)
        if root:
            variance = _function(call, "square_root", variance, kept)
        return call.layer("reshape", (variance,))

    return capture


def _norm(call: CapturedNode, x: str, shape: Shape, dims: tuple[int, ...], order: float) -> str:
    """Steps to the norms over `dims`; where all elements are 0 their gradient is 0, as in PyTorch."""
    if order == 1:
        return _sum(call, _function(call, "absolute", x, shape), shape, dims)
    if order != 2:
        raise NotCovered("of another order than 1 and 2")
    squares = arithmetic_step(call, MULTIPLY, x, x, shape)
    return _function(call, "square_root", _sum(call, squares, shape, dims), _kept(shape, dims), 1.0)


def _capture_norm(call: CapturedNode) -> Layer:
    shape = call.shape("self")
    order = call.arguments.get("ord", call.arguments.get("p"))
    dims = _dims(call, shape, call.arguments.get("dim"))
    return call.layer("reshape", (_norm(call, call.activation("self"), shape, dims, 2 if order is None else order),))


def _capture_weight_norm(call: CapturedNode) -> Layer:
    """v by its norm over all dimensions but one, times g."""
    if call.index == 1:
        raise NotCovered("with the norms as a result")
    shape, dim = call.shape("v"), call.arguments["dim"]
    dims = tuple(d for d in range(len(shape)) if dim < 0 or d != dim % len(shape))
    v = call.activation("v")
    factor = arithmetic_step(call, DIVIDE, call.activation("g"), _norm(call, v, shape, dims, 2), _kept(shape, dims))
    return arithmetic(call, MULTIPLY, v, factor)


def _capture_rms_norm(call: CapturedNode) -> Layer:
    """x by the root of the mean of its squares over the last dimensions."""
    shape, inner = call.shape("input"), len(call.arguments["normalized_shape"])
    dims = tuple(range(len(shape) - inner, len(shape)))
    if call.over_examples("input", dims):
        raise NotCovered("over the batch")
    eps = call.arguments["eps"]
    x, kept = call.activation("input"), _kept(shape, dims)
    squares = arithmetic_step(call, MULTIPLY, x, x, shape)
    mean = _sum(call, squares, shape, dims, 1.0 / math.prod(shape[d] for d in dims))
    mean = call.step("affine", (mean,), kept, factor=1.0, offset=_FLOAT32_EPS if eps is None else float(eps))
    factor = _function(call, "inverse_root", mean, kept)
    if call.arguments.get("weight") is None:
        return arithmetic(call, MULTIPLY, x, factor)
    y = arithmetic_step(call, MULTIPLY, x, factor, shape)
    return arithmetic(call, MULTIPLY, y, call.activation("weight"))


_FLOAT32_EPS = 1.1920928955078125e-07


def _log_sum_exp(call: CapturedNode, x: str, shape: Shape, dims: tuple[int, ...]) -> tuple[str, str, str]:
    """Steps to the maximum, to x less that, and to the logarithm of the sum of the difference's exponentials.

    The maximum takes no gradient: what is taken away comes back, or cancels out.
    """
    kept = _kept(shape, dims)
    largest = call.step("reshape", (maxima(call, x, shape, dims),), kept)
    fixed = call.step("detached", (largest,), kept)
    apart = arithmetic_step(call, SUBTRACT, x, fixed, shape)
    sums = _sum(call, _function(call, "exponential", apart, shape), shape, dims)
    return fixed, apart, _function(call, "logarithm", sums, kept)


def _capture_log_softmax(call: CapturedNode) -> Layer:
    shape = call.shape("self")
    _, apart, log_sum = _log_sum_exp(call, call.activation("self"), shape, _dims(call, shape, call.arguments["dim"]))
    return arithmetic(call, SUBTRACT, apart, log_sum)


def _capture_logsumexp(call: CapturedNode) -> Layer:
    shape = call.shape("self")
    dims = _dims(call, shape, call.arguments["dim"])
    fixed, _, log_sum = _log_sum_exp(call, call.activation("self"), shape, dims)
    return call.layer("reshape", (arithmetic_step(call, ADD, log_sum, fixed, _kept(shape, dims)),))


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    **dict.fromkeys(("var", "var_mean"), _capture_variance(root=False)),
    **dict.fromkeys(("std", "std_mean"), _capture_variance(root=True)),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _capture_norm),
    **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), _capture_weight_norm),
    "rms_norm": _capture_rms_norm,
    **dict.fromkeys(("log_softmax", "_log_softmax"), _capture_log_softmax),
    "logsumexp": _capture_logsumexp,
}
EMITTERS: dict[str, Callable[..., object]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
