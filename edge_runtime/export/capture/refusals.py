"""What a captured graph cannot express, by module and operator."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import nn

from device_profiles.errors import UsageError
from edge_runtime.export.capture.nodes import arguments_of, line_of, may_overlap, name_of, place_of, root_of, target_of
from edge_runtime.export.capture.writes import changed_whole, follows
from edge_runtime.export.ir.draws import is_part
from edge_runtime.export.ir.layers import WHOLE_TYPES, NotCovered
from edge_runtime.export.operators.selection import TAKES_TRUTHS, TRUTHS

_RECURRENT = ("gru", "lstm", "rnn_tanh", "rnn_relu")
_DROPS = frozenset({"dropout", "feature_dropout", "scaled_dot_product_attention", "bernoulli", *_RECURRENT})
"""Operators whose random numbers are this runtime's own."""
REASONS = {
    "wrap_with_set_grad_enabled": "it switches gradients off or on in a part of forward; requires_grad=False keeps "
    "parameters as they are, detach() ends a gradient",
    "to": "it changes the element type; this runtime computes in float32",
}
"""Why some operators are not covered, where their names do not say it."""
NEAREST = {
    "alpha_dropout": "nn.Dropout",
    "feature_alpha_dropout": "nn.Dropout2d",
    "batch_norm": "nn.GroupNorm",
    "bernoulli": "nn.Dropout",
    "grid_sampler": "interpolate, or an index by constant places",
    "index_put": "torch.where or torch.cat",
    "masked_select": "torch.where or masked_fill",
    "max_pool2d_with_indices": "max_pool2d without return_indices",
    "nonzero": "torch.where of three arguments",
    "rand": "nn.Dropout",
    "rand_like": "nn.Dropout",
    "randn": "nn.Dropout",
    "randn_like": "nn.Dropout",
    "rrelu": "nn.LeakyReLU",
    "scatter": "torch.where or torch.cat",
    "scatter_add": "a product with a matrix of ones and zeros",
}
"""What does nearly the same as an operator, and is covered."""


class MissingError(UsageError):
    """An operator that is not covered; `inner` says which, to who captures another one that is made of it."""

    def __init__(self, node: torch.fx.Node, operator: str, reason: str) -> None:
        nearest = NEAREST.get(operator)
        super().__init__(
            f"{place_of(node)}: operator {target_of(node)}{line_of(node)} has no training kernel in this runtime"
            f"{f' ({reason})' if reason else ''}; "
            + (f"the nearest that works is {nearest}; " if nearest else "")
            + "write it with operators that docs/operators.md lists, or leave it out"
        )
        self.inner = (
            reason
            if reason.startswith("it is made of")
            else f"it is made of {target_of(node)}" + (f", {reason}" if reason else "")
        )


def refuse_cumulative_averages(model: nn.Module) -> None:
    """PyTorch's tracer would stop at the number of batches that such a BatchNorm reads, without naming it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is None:
            raise UsageError(
                f"module '{name}': {type(module).__name__} with momentum=None, the average of all batches so far, is "
                "not trained by this runtime; give it a momentum, such as PyTorch's 0.1"
            )


def is_random(node: torch.fx.Node) -> bool:
    """Whether the operator draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def refuse_random_numbers(node: torch.fx.Node) -> None:
    """Raise UsageError where forward draws random numbers: a captured graph would have one draw for ever."""
    name = name_of(node)
    if not is_random(node) or name in _DROPS or not node.users or is_part(node):
        return
    arguments = arguments_of(node)
    if name == "rrelu" and not arguments["training"]:
        return
    if name in ("alpha_dropout", "feature_alpha_dropout") and not (arguments["p"] and arguments["train"]):
        return
    raise MissingError(node, name, "it draws random numbers, as noise does; nn.Dropout is covered")


def refuse_other_types(node: torch.fx.Node, constants: Container[str]) -> None:
    """Raise NotCovered where a result is not float32; tokens are looked up as they come, and truth values that are
    computed go to the few operators that know of them."""
    value = node.meta.get("val")
    truths = any(
        argument.meta["val"].dtype == torch.bool and argument.name not in constants
        for argument in node.all_input_nodes
        if isinstance(argument.meta.get("val"), torch.Tensor)
    )
    if truths and name_of(node) not in TAKES_TRUTHS:
        raise NotCovered("of truth values; make numbers of them by .float()")
    if isinstance(value, torch.Tensor) and value.dtype == torch.bool and (truths or name_of(node) in TRUTHS):
        return
    if isinstance(value, torch.Tensor) and value.dtype not in (torch.float32, *WHOLE_TYPES):
        kind = str(value.dtype).removeprefix("torch.")
        raise NotCovered(f"with a result of {kind}; this runtime computes in float32")


def refuse_change_of_views(node: torch.fx.Node) -> None:
    """Raise NotCovered where an operator in place changes bytes that are read later under another name."""
    if not name_of(node, bare=False).endswith("_"):
        return
    changed = node.args[0]
    assert isinstance(changed, torch.fx.Node)
    family, behind, parts = root_of(changed), False, changed_whole(node) is not None
    earlier: set[torch.fx.Node] = set()
    for other in node.graph.nodes:
        if behind:
            read = [source for source in other.all_input_nodes if root_of(source) is family]
            # The whole of what is changed in part is another tensor from there on, and so are its later views.
            read = [source for source in read if not parts or (source in earlier and source is not family)]
            if any(not follows(source, node) and may_overlap(source, changed) for source in read):
                raise NotCovered("in place on a tensor that is read later under another name")
        else:
            earlier.add(other)
        behind = behind or other is node
