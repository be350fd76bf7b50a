"""What is done to PyTorch's graph before it is captured.

What serves nothing goes. Complex numbers become their parts. What has as many elements as the data say is written with
operators of fixed shapes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from edge_runtime.export.capture.complex_parts import without_complex
from edge_runtime.export.capture.nodes import CHECKS, copied_before, name_of, result_of
from edge_runtime.export.capture.tracing import quiet


def rewritten(graph: fx.Graph, constants: set[str]) -> dict[str, str]:
    """Rewrite `graph`; returns the new names of results, by the old ones. `constants` name what nobody computes.

    Raises MissingError, naming the operator, for one of complex numbers that has no rule.
    """
    _without_needless(graph)
    renamed = _with_marked_ones(graph)
    _without_needless(graph)
    return renamed | without_complex(graph, constants)


def _without_needless(graph: fx.Graph) -> None:
    """Take out what nobody reads and what only PyTorch's checks read."""
    for node in reversed(graph.nodes):
        changes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        if node.op == "call_function" and not node.users and (name_of(node) in CHECKS or not changes):
            graph.erase_node(node)


def _with_marked_ones(graph: fx.Graph) -> dict[str, str]:
    """The last or first of each example's elements that a mask marks, as classifiers read at the end of a text:
    `x[mask].view(len(x), -1, features)[:, -1]`, where PyTorch demands as many marks in every example.

    An example without a mark has zeros.
    """
    renamed = {}
    for chosen in [node for node in graph.nodes if name_of(node) == "select"]:
        found = _marked(chosen)
        if found is not None:
            result = _written(chosen, *found)
            chosen.replace_all_uses_with(result)
            renamed[chosen.name] = result.name
    return renamed


def _written(chosen: fx.Node, x: fx.Node, mask: fx.Node) -> fx.Node:
    """Nodes of fixed shapes in front of a choice among marked elements; the one of its result."""
    last = bool(chosen.args[2] == -1)

    def compute(x: Tensor, mask: Tensor) -> Tensor:
        return _at_mark(x, mask, last=last)

    with quiet(), torch.no_grad():
        body = make_fx(compute)(x.meta["val"], mask.meta["val"]).graph
    return copied_before(chosen, body, (x, mask))[result_of(body)]


def _marked(chosen: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """(x, mask) of a choice among marked elements; None for any other `select`."""
    viewed, dim, place = chosen.args
    if (
        not isinstance(viewed, fx.Node)
        or dim != 1
        or place not in (0, -1)
        or name_of(viewed) not in ("view", "reshape")
    ):
        return None
    indexed: Any = viewed.args[0]
    if not isinstance(indexed, fx.Node) or name_of(indexed) != "index":
        return None
    x, places = indexed.args
    assert isinstance(x, fx.Node) and isinstance(places, (list, tuple))
    mask = places[0]
    if len(places) != 1 or not isinstance(mask, fx.Node) or mask.meta["val"].dtype != torch.bool:
        return None
    shape, marks = tuple(x.meta["val"].shape), tuple(mask.meta["val"].shape)
    kept = tuple(viewed.meta["val"].shape)
    right = len(marks) == 2 and marks == shape[:2] and len(kept) == len(shape) and kept[0] == shape[0]
    return (x, mask) if right and kept[2:] == shape[2:] else None


def _at_mark(x: Tensor, mask: Tensor, *, last: bool) -> Tensor:
    """Of `x` [examples, places, ...] the element of each example at its last or first mark [examples, places]."""
    places = torch.arange(1, mask.shape[1] + 1)
    numbers = (places if last else places.flip(0)).to(torch.float32)
    wanted = (mask.to(torch.float32) * numbers).amax(1, keepdim=True)
    there = (numbers == wanted).view(*mask.shape, *(1,) * (x.dim() - 2))
    return torch.where(there, x, 0.0).sum(1)
