"""Fuse normalisation with the addition and the activation behind it, before anything is differentiated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from edge_runtime.export.capture.capture import CapturedModel
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.activation import FUSED


def fuse(model: CapturedModel) -> CapturedModel:
    """Layers where `batch_norm` carries its residual (second input), both norms their activation, `add` its ReLU.

    Only activations with a single reader are fused away, so every other reader still finds its tensor.
    """
    layers = _fuse_additions(list(model.layers))
    return replace(model, layers=tuple(_fuse_activations(layers)))


def _readers(layers: list[Layer]) -> Counter[str]:
    return Counter(name for layer in layers for name in layer.inputs)


def _fuse_additions(layers: list[Layer]) -> list[Layer]:
    readers = _readers(layers)
    result: list[Layer] = []
    for layer in layers:
        position = _last_batch_norm(result, layer, readers) if layer.kind == "add" else None
        if position is None:
            result.append(layer)
            continue
        norm = result.pop(position)
        other = next(name for name in layer.inputs if name != norm.output)
        result.append(replace(norm, inputs=(norm.inputs[0], other), output=layer.output))
    return result


def _last_batch_norm(done: list[Layer], addition: Layer, readers: Counter[str]) -> int | None:
    """Position of the BatchNorm that computes one summand and can wait for the other; the latest one, if any."""
    if addition.inputs[0] == addition.inputs[1]:
        return None
    for position in range(len(done) - 1, -1, -1):
        layer = done[position]
        if layer.output in addition.inputs:
            free = layer.kind == "batch_norm" and len(layer.inputs) == 1 and readers[layer.output] == 1
            return position if free else None
    return None


def _fuse_activations(layers: list[Layer]) -> list[Layer]:
    readers = _readers(layers)
    result: list[Layer] = []
    for layer in layers:
        previous = next((i for i, done in enumerate(result) if done.output in layer.inputs), None)
        if layer.kind == "activation" and previous is not None:
            producer = result[previous]
            if readers[producer.output] == 1 and _takes(producer, layer.attributes["activation"]):
                attributes = {**producer.attributes, "activation": layer.attributes["activation"]}
                result[previous] = replace(producer, output=layer.output, attributes=attributes)
                continue
        result.append(layer)
    return result


def _takes(producer: Layer, activation: str) -> bool:
    """Whether a layer can carry `activation`, and carries none so far."""
    if producer.attributes.get("activation") != "none":
        return False
    if producer.kind == "add":
        return activation == "relu"
    return producer.kind in ("batch_norm", "group_norm") and activation in FUSED
