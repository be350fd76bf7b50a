"""Hold the exporter's own step against PyTorch's, before a bundle is written.

The whole model is made one block, whose program runs once with the real kernels on random data and weights: loss, every
gradient, running statistics, and the evaluation are compared with what the user's module does by itself
(`reference.py`). What differs refuses the export and names the first module that does.

With `trial.py` and `programs.py` this is what of the exporter knows the native module: a leaf that `targets/native.py`
imports when it is asked for.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from device_profiles.errors import ProflError, UsageError
from device_profiles.manifest import Loss
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.verify.fewer import with_fewer
from edge_runtime.export.verify.programs import step_program
from edge_runtime.export.verify.reference import at_random_weights
from edge_runtime.export.verify.trial import Trial

_SEEDS = range(20, 26)
"""Of random data and weights. A value on the other side of a ReLU by rounding, and the gradients that it changes, are
not there a second time: a gradient is right if it is in one of them. The third and later are tried only as long as each
shows more gradients to be right."""
_MOST_PRODUCTS = 500_000_000
"""Multiplications of a forward pass that is tried; a larger one is made of fewer examples, which shows the same."""
_LEAST_EXAMPLES = 4
_REMEDY = "write it with what docs/operators.md lists, or export with --no-verify"


def verify(module: nn.Module, source: BlockModel, loss: Loss) -> float:
    """How far the loss of a step is from PyTorch's, relative to it.

    Raises UsageError, naming the first module that differs, where a program would not do what `module` does.
    """
    most = max(_LEAST_EXAMPLES, source.batch * _MOST_PRODUCTS // max(1, _products(source)))
    with torch.random.fork_rng(devices=[]):
        if most >= source.batch:
            found, distance = _difference(module, source, loss)
        else:
            found, distance = _with_fewer(module, source, loss, most) or _difference(
                module, _captured_again(module, source, most), loss
            )
    if found is not None:
        raise UsageError(f"verification: {found}; {_REMEDY}")
    return distance


def _difference(module: nn.Module, tried: BlockModel, loss: Loss) -> tuple[str | None, float]:
    """What differs on all of the random data, in words, None where nothing does; and how far the loss is off."""
    planned = step_program(tried, loss)
    agreed: set[str] = set()
    found, distance = None, 0.0
    for attempt, seed in enumerate(_SEEDS):
        before = len(agreed)
        with at_random_weights(module, seed):
            trial = Trial(module, tried, loss, seed)
            found, distance = trial.verdict(planned, agreed), trial.loss_distance
        if found is None or (attempt > 0 and len(agreed) == before):
            break
    return found, distance


def _with_fewer(module: nn.Module, source: BlockModel, loss: Loss, examples: int) -> tuple[None, float] | None:
    """How far the loss is off where the capture itself, with rows left out, does what the module does with as many
    examples; None where it does not.

    It need not: forward may compute with the number of its examples. Such a model is captured again.
    """
    tried = with_fewer(source, examples)
    if tried is None:
        return None
    try:
        found, distance = _difference(module, tried, loss)
    except Exception:  # whatever the user's forward raises for another number of examples
        return None
    return (None, distance) if found is None else None


def _captured_again(module: nn.Module, source: BlockModel, examples: int) -> BlockModel:
    """The model captured with fewer examples; as it is where it takes one batch size only."""
    try:
        return BlockModel.of(
            module,
            name=source.name,
            batch=examples,
            input_shape=source.input_shape,
            classes=source.classes,
            head=source.head,
            input_dtype=source.input_dtype,
        )
    except ProflError:
        return source


def _products(source: BlockModel) -> int:
    """Multiplications of convolutions and linear layers in a forward pass."""
    layers = [layer for unit in (*source.cut.units, source.cut.head) for layer in unit.layers]
    total = 0
    for layer in layers:
        if layer.kind in ("conv2d", "conv_transpose2d", "linear") and layer.tensors[0] is not None:
            total += math.prod(layer.shape) * math.prod(source.own_shapes[layer.tensors[0]][1:])
    return total
