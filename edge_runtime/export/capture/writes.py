"""Changes of a part of a tensor in place, such as `y[:, 1:] = x`: the whole tensor with the part in its place."""

from __future__ import annotations

import operator

import torch

from edge_runtime.export.capture.nodes import name_of, root_of
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.elementwise import ADD, SELECT, arithmetic_step
from edge_runtime.export.operators.shape import VIEWS


def changed_whole(node: torch.fx.Node) -> torch.fx.Node | None:
    """The tensor a part of which `node` changes in place; None where it changes all of one, or nothing, or where
    nothing but the changed part is read from there on."""
    if not name_of(node, bare=False).endswith("_") or not isinstance(node.args[0], torch.fx.Node):
        return None
    views = _views(node.args[0])
    return root_of(node.args[0]) if views and _is_read_behind(node) else None


def _is_read_behind(changed: torch.fx.Node) -> bool:
    """Whether the bytes that `changed` changes are read later by another way than through its result."""
    family, behind = root_of(changed), False
    for other in changed.graph.nodes:
        if behind and any(
            root_of(source) is family and not follows(source, changed) for source in other.all_input_nodes
        ):
            return True
        behind = behind or other is changed
    return False


def follows(source: torch.fx.Node, changed: torch.fx.Node) -> bool:
    """Whether a node shows the bytes by way of the operator that changed them."""
    while source is not changed:
        if source.op != "call_function" or not source.args or not isinstance(source.args[0], torch.fx.Node):
            return False
        source = source.args[0]
    return True


def _views(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The views by which a node shows its root, from the root on."""
    found, root = [], root_of(node)
    while node is not root:
        if node.target is operator.getitem or name_of(node) in VIEWS:
            found.append(node)
        before = node.args[0]
        assert isinstance(before, torch.fx.Node)
        node = before
    return found[::-1]


def written(call: CapturedNode, layer: Layer, whole: torch.fx.Node) -> str:
    """Steps behind `layer`, which puts out the changed part, to the whole tensor; its name."""
    changed = call.node.args[0]
    assert isinstance(changed, torch.fx.Node)
    shape = tuple(whole.meta["val"].shape)
    places, rows = _places(changed, shape), shape[0]
    if _of_no_example(call, layer, whole):
        places, rows = places[None], 1
    inner, each = places[0].reshape(-1), places.reshape(len(places), -1)
    if len(places) != rows or not torch.equal(each, inner + each[:, :1] - inner[:1]):
        raise NotCovered("in place on a part of the batch")
    call.before.append(layer)
    part = call.step("reshape", (layer.output,), (rows, len(inner)))
    size = whole.meta["val"].numel() // rows
    put = call.step("put", (part,), (rows, size), (call.keep_constant("written", inner),))
    put = call.step("reshape", (put,), shape)
    known = call.constants.get(whole.name)
    if known is not None and not bool(known.any()):
        return put
    stays = torch.ones(size)
    stays[inner] = 0.0
    mask = call.kept("stays", stays.reshape(shape if rows == 1 else (1, *shape[1:])))
    kept = arithmetic_step(call, SELECT, call.activation_of(whole, "self"), mask, shape)
    return arithmetic_step(call, ADD, kept, put, shape)


def _of_no_example(call: CapturedNode, layer: Layer, whole: torch.fx.Node) -> bool:
    """Whether what is written, and what it is written to, follow from parameters and constants alone."""
    if whole.name in call.constants:
        return False
    read = {call.renamed.get(whole.name, whole.name), *layer.inputs, *(x for step in call.before for x in step.inputs)}
    return all(call.owners.get(name) is None for name in read)


def _places(view: torch.fx.Node, shape: tuple[int, ...]) -> torch.Tensor:
    """Where the elements of a view lie in its root of `shape`."""
    seen: torch.Tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
    several: object = None
    for node in _views(view):
        if node.target is operator.getitem:
            assert isinstance(several, (tuple, list)) and isinstance(node.args[1], int)
            seen = several[node.args[1]]
            continue
        result = node.target(seen, *node.args[1:], **node.kwargs)  # type: ignore[operator]  # an operator
        several, seen = result, result if isinstance(result, torch.Tensor) else seen
    return seen
