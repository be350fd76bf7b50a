"""Where the classifier head of a model begins: what every output module ends with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from device_profiles.errors import UsageError
from device_profiles.settings import THE_MODEL, Setting
from edge_runtime.export.ir.layers import Layer

_ELEMENTWISE = frozenset({"activation", "gelu", "affine", "dropout", "softmax"})
_POOLED = frozenset({"global_average_pool", "reduce", "reshape"})
_SIMPLE = (
    _ELEMENTWISE
    | _POOLED
    | {"add", "arithmetic", "batch_norm", "layer_norm", "linear", "view", "crop", "permute", "cat"}
    | {"average_pool2d", "max_pool2d", "top", "resample2d"}
)
"""What a head may be made of where no other rule knows it."""


def head_starts(
    layers: tuple[Layer, ...],
    *,
    batch: int,
    classes: int,
    positions: int = 1,
    head: str | None,
    points: Sequence[int],
) -> Iterator[int]:
    """Indices of layers that may be the first of the head, the best first.

    Recognised are pooling, flattening or the choice of one token, with a LayerNorm or not, and linear layers with
    activations and dropout between them, a last linear layer behind features, a 1x1 convolution to the classes
    before global pooling, and what else lies behind the last of `points` (where one tensor is alive) with weights
    behind it, such as two classifiers that are averaged; `head` names the module where any other begins. Raises
    UsageError where the model does not end with logits, or no module has that name.
    """
    shape = layers[-1].shape
    if shape[:1] != (batch,):
        raise UsageError(
            (THE_MODEL, f" returns {shape[0] if shape else 'no'} rows for {batch} examples"),
            remedy="keep the examples apart",
        )
    if len(shape) != 2 or shape[1] != positions * classes:
        text = "x".join(map(str, shape[1:]))
        raise UsageError(
            (THE_MODEL, f" returns {text} for an example, not {classes} logits"),
            remedy=("correct ", Setting("classes"), " or the model"),
        )
    if head is not None:
        yield _named(layers, head)
        return
    for start in (_features_head(layers), _convolution_head(layers), *_simple_heads(layers, points, classes)):
        if start > 0:
            yield start


def unrecognised(proposed: str | None) -> UsageError:
    """The refusal of a model without a head; `proposed` is a module that would be one."""
    option = Setting("head") if proposed is None else Setting("head", proposed)
    return UsageError(
        (
            THE_MODEL,
            " does not end with a classifier head that is recognised (pooling and linear layers, or a 1x1 "
            "convolution and pooling) with layers before it",
        ),
        remedy=("name the module where it begins with ", option),
    )


def modules_behind(layers: tuple[Layer, ...], points: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Modules with weights, from the last on, where a head may be said to begin, and the first layer of that head."""
    for start in reversed(points):
        module = layers[start].module
        if start > 0 and module and layers[start].tensors:
            named = _named(layers, module)
            if named > 0:
                yield module, named


def _simple_heads(layers: tuple[Layer, ...], points: Sequence[int], classes: int) -> Iterator[int]:
    """Behind the last point that has linear layers or convolutions to the classes behind it, with the pooling before
    these."""
    for start in reversed(points):
        behind = layers[start:]
        if not all(layer.kind in _SIMPLE or _classifies(layer, classes) for layer in behind):
            return
        if any(layer.kind == "linear" or _classifies(layer, classes) for layer in behind):
            yield _back_over_pooling(layers, start)
            yield start
            return


def _classifies(layer: Layer, classes: int) -> bool:
    """Whether a layer is a convolution to the classes, or of the weights that they are averaged with."""
    return layer.kind == "conv2d" and layer.shape[1] in (classes, 1)


def _named(layers: tuple[Layer, ...], head: str) -> int:
    for start, layer in enumerate(layers):
        if layer.module == head or layer.module.startswith(f"{head}."):
            return _back_over_pooling(layers, start)
    modules = list(dict.fromkeys(layer.module for layer in layers if layer.module))
    last = ", ".join(modules[-4:])
    raise UsageError(
        f"no module of this name with a layer in the model (its last ones: {last})", field="head", value=head
    )


def _features_head(layers: tuple[Layer, ...]) -> int:
    """Linear layers behind pooling or flattening; only the last linear layer where features come from the input on."""
    start = len(layers)
    while start > 0 and layers[start - 1].kind in _ELEMENTWISE | {"linear"} and len(layers[start - 1].shape) == 2:
        start -= 1
    if not any(layer.kind == "linear" for layer in layers[start:]):
        return 0
    pooled = _back_over_pooling(layers, start)
    if 0 < pooled < start:
        return pooled
    return max(i for i, layer in enumerate(layers) if layer.kind == "linear")


def _convolution_head(layers: tuple[Layer, ...]) -> int:
    """A 1x1 convolution to the classes, with an activation or not, then pooling."""
    start = _back_over_pooling(layers, len(layers))
    if start == len(layers):
        return 0
    while start > 0 and layers[start - 1].kind in _ELEMENTWISE:
        start -= 1
    convolution = layers[start - 1] if start > 0 else None
    if convolution is None or convolution.kind != "conv2d" or convolution.shape[1] != layers[-1].shape[1]:
        return 0
    start -= 1
    while start > 0 and layers[start - 1].kind == "dropout":
        start -= 1
    return start


def _back_over_pooling(layers: tuple[Layer, ...], start: int) -> int:
    """The first of the layers right before `start` that turn images or sequences into features, dropout among them."""
    behind = start
    while start > 0:
        layer = layers[start - 1]
        pools = _pools(layer) or layer.kind == "dropout"
        # A norm of the features right behind pooling, or of the tokens right before it.
        of_features = layer.kind == "layer_norm" and start > 1 and _pools(layers[start - 2])
        of_tokens = layer.kind == "layer_norm" and len(layer.shape) == 3 and start < behind
        if not (pools or of_features or of_tokens):
            break
        start -= 1
    return start


def _pools(layer: Layer) -> bool:
    adaptive = layer.attributes.get("kernel") == (0, 0)
    whole = layer.kind == "average_pool2d" and all(extent == 1 for extent in layer.shape[2:])
    # The class token: one of all.
    token = layer.kind in ("view", "crop") and len(layer.shape) == 2
    return layer.kind in _POOLED or adaptive or whole or token
