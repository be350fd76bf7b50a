"""What has no capture rule of its own but is defined by other operators: PyTorch's own definition takes its place."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch._decomp import core_aten_decompositions, decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from edge_runtime.export.capture.nodes import copied_before, name_of, result_of
from edge_runtime.export.capture.tracing import quiet

_STATEFUL = frozenset({"batch_norm", "instance_norm"})
"""Their definitions hide that they change running statistics."""
Replaced = list[tuple[torch.fx.Node, torch.fx.Node]]
"""(a node that nobody reads any more, what is read in its place)."""


def decomposed(node: torch.fx.Node) -> tuple[list[torch.fx.Node], Replaced]:
    """Nodes in front of `node` that compute what it does, and take its place for all who read it.

    Empty where PyTorch does not define the operator by others, or needs the values of a tensor for it. `node` itself
    stays in the graph, and nothing reads it any more.
    """
    target = node.target
    if name_of(node) == "wrap_with_autocast":
        return _unwrapped(node)
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable or name_of(node) in _STATEFUL:
        return [], []
    definition = core_aten_decompositions().get(target) or decomposition_table.get(target)
    if definition is None and not target._can_decompose():
        return [], []
    leaves, structure = pytree.tree_flatten((node.args, node.kwargs))
    sources = [leaf for leaf in leaves if isinstance(leaf, torch.fx.Node)]

    def call(*tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        filled = [next(given) if isinstance(leaf, torch.fx.Node) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, structure)
        return definition(*args, **kwargs) if definition is not None else target.decompose(*args, **kwargs)

    try:
        with quiet(), torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
            traced = make_fx(torch.func.functionalize(call))(*(source.meta["val"] for source in sources))
    except Exception:  # whatever a definition asks of its arguments: it then has none that serves
        return [], []
    if any(part.op == "get_attr" or part.target is target for part in traced.graph.nodes):
        return [], []
    return _inlined(node, traced.graph, sources)


def _unwrapped(node: torch.fx.Node) -> tuple[list[torch.fx.Node], Replaced]:
    """What `torch.autocast` surrounds: it is computed in float32, as everything is."""
    body = node.args[4]
    module = node.graph.owning_module
    assert isinstance(body, torch.fx.Node) and module is not None
    graph = module.get_submodule(str(body.target)).graph
    assert isinstance(graph, torch.fx.Graph)
    if any(part.op == "get_attr" for part in graph.nodes):
        return [], []
    return _inlined(node, graph, [source for source in node.args[5:] if isinstance(source, torch.fx.Node)])


def _inlined(
    node: torch.fx.Node, body: torch.fx.Graph, sources: list[torch.fx.Node]
) -> tuple[list[torch.fx.Node], Replaced]:
    known, result = copied_before(node, body, sources), result_of(body)
    made = [known[part] for part in body.nodes if part.op == "call_function"]
    replaced = [(node, known[result])] if isinstance(result, torch.fx.Node) else []
    for user in [] if replaced else node.users:
        place = user.args[1]
        assert user.target is operator.getitem and isinstance(place, int)
        replaced.append((user, known[result[place]]))
    for old, new in replaced:
        old.replace_all_uses_with(new)
    return made, replaced
