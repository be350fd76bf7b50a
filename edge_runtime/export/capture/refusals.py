"""What a captured graph cannot express, by module and operator."""

from __future__ import annotations

import torch
from torch import nn

from device_profiles.errors import UsageError
from edge_runtime.export.capture.nodes import arguments_of, name_of, place_of

_DROPS = frozenset({"dropout", "feature_dropout", "scaled_dot_product_attention"})
"""Operators whose random numbers are this runtime's own."""
REASONS = {
    "wrap_with_set_grad_enabled": "it switches gradients off or on in a part of forward; requires_grad=False keeps "
    "parameters as they are, detach() ends a gradient",
    "to": "it changes the element type; this runtime computes in float32",
}
"""Why some operators are not covered, where their names do not say it."""
_RECURRENT = frozenset({"gru", "lstm", "rnn_tanh", "rnn_relu"})


def refuse_cumulative_averages(model: nn.Module) -> None:
    """PyTorch's tracer would stop at the number of batches that such a BatchNorm reads, without naming it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is None:
            raise UsageError(
                f"module '{name}': {type(module).__name__} with momentum=None, the average of all batches so far, is "
                "not trained by this runtime; give it a momentum, such as PyTorch's 0.1"
            )


def refuse_random_numbers(node: torch.fx.Node) -> None:
    """Raise UsageError where forward draws random numbers: a captured graph would have one draw for ever."""
    tags, name = getattr(node.target, "tags", ()), name_of(node)
    if torch.Tag.nondeterministic_seeded not in tags or name in _DROPS or not node.users:
        return
    arguments = arguments_of(node)
    if name in ("alpha_dropout", "feature_alpha_dropout") and not (arguments["p"] and arguments["train"]):
        return
    if name in _RECURRENT and (arguments["dropout"] == 0.0 or arguments["num_layers"] == 1 or not arguments["train"]):
        return
    raise UsageError(
        f"{place_of(node)}: operator {node.target} has no training kernel in this runtime (it draws random "
        "numbers, as noise and stochastic depth do; nn.Dropout is covered); set its rate to 0, or leave it out"
    )
