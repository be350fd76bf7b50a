"""Images and sequences at another size: nearest neighbours and linear interpolation."""

from __future__ import annotations

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered

NEAREST, NEAREST_EXACT, LINEAR, LINEAR_CORNERS = range(4)
"""Number of each way in a program; `csrc/kernels/pooling/resample.cpp` has the same."""
MOST_COLUMNS = 1 << 16
"""Of the output: the kernels keep their places in the workspace."""

_MODES = {
    "upsample_nearest1d": NEAREST,
    "upsample_nearest2d": NEAREST,
    "_upsample_nearest_exact1d": NEAREST_EXACT,
    "_upsample_nearest_exact2d": NEAREST_EXACT,
    "upsample_linear1d": LINEAR,
    "upsample_bilinear2d": LINEAR,
}


def _capture(call: CapturedNode) -> Layer:
    before, after = call.shape("input" if "input" in call.arguments else "self"), call.output_shape
    if len(before) not in (3, 4):
        raise NotCovered("without a batch dimension")
    if after[-1] > MOST_COLUMNS:
        raise NotCovered(f"to more than {MOST_COLUMNS} columns")
    mode = LINEAR_CORNERS if call.arguments.get("align_corners") else _MODES[call.operator]
    scales = _scales(call, len(before) - 2)
    steps = tuple(
        step(mode, extent, size, scale) for extent, size, scale in zip(before[2:], after[2:], scales, strict=True)
    )
    source = "input" if "input" in call.arguments else "self"
    return call.layer("resample2d", (call.activation(source),), mode=mode, steps=(1.0, *steps)[-2:])


def _scales(call: CapturedNode, directions: int) -> tuple[float | None, ...]:
    """The factors that the model asks for, where it asks for factors."""
    if call.arguments.get("scale_factors") is not None:
        return tuple(float(scale) for scale in call.arguments["scale_factors"])
    names = ("scales_h", "scales_w") if directions == 2 else ("scales",)
    return tuple(call.arguments.get(name) for name in names)


def step(mode: int, before: int, after: int, scale: float | None = None) -> float:
    """How far two neighbours of the output are apart in the input."""
    if mode == LINEAR_CORNERS:
        return (before - 1) / (after - 1) if after > 1 else 0.0
    return 1.0 / scale if scale else before / after


def _resample(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    how = (int(layer.attributes["mode"]), *(float(step) for step in layer.attributes["steps"]))
    x = values[layer.inputs[0]]

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("resample2d", (x, *how), (y,))
        return y

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        result = builder.new(f"{layer.module}.input_gradient", x.shape)
        builder.graph.emit("resample2d_backward", (gradient, *how), (result,))
        return [(x, result)]

    return builder.record(builder.derived((x,), compute), rule)


CAPTURES = dict.fromkeys(_MODES, _capture)
EMITTERS = {"resample2d": _resample}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
