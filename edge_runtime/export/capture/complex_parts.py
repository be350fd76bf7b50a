"""Complex numbers, as Fourier transforms compute with them: real and imaginary parts, each a tensor of its own.

PyTorch says which few operators a call comes down to, and a rule (`complex_rules.py`) what each of these does to the
parts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from edge_runtime.export.capture.complex_rules import NoRuleError, Parts, computed, is_parts
from edge_runtime.export.capture.nodes import CHECKS, copied_before, name_of, result_of
from edge_runtime.export.capture.refusals import MissingError
from edge_runtime.export.capture.tracing import quiet

_TRANSFORMS = ("fft_", "stft", "istft")
"""How the names of operators begin that may compute with complex numbers inside."""


def without_complex(graph: fx.Graph, constants: set[str]) -> dict[str, str]:
    """Rewrite what `graph` computes with complex numbers, but for what follows from `constants` alone.

    Returns the new names of results, by the old ones. Raises MissingError, naming the operator, for one without a rule.
    """
    parts: dict[fx.Node, Any] = {}
    fixed, renamed = set(constants), dict[str, str]()
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        sources = node.all_input_nodes
        if all(source.name in fixed for source in sources):
            fixed.add(node.name)
        elif node.target is operator.getitem and sources[0] in parts:
            parts[node] = parts[sources[0]][node.args[1]]
        elif name_of(node).startswith(_TRANSFORMS) or any(map(_is_complex, (node, *sources))):
            parts[node] = None if name_of(node) in CHECKS else _rewritten(node, parts)
        if isinstance(parts.get(node), fx.Node):
            node.replace_all_uses_with(parts[node])
            renamed[node.name] = parts[node].name
    for node in reversed(parts):
        graph.erase_node(node)
    return renamed


def _is_complex(node: fx.Node) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in pytree.tree_leaves(node.meta.get("val")))


def _rewritten(node: fx.Node, parts: dict[fx.Node, Any]) -> Any:
    """Nodes in front of `node` for its result, with `Parts` of two nodes for each that is complex."""
    leaves, structure = pytree.tree_flatten((node.args, node.kwargs))
    given = [leaf for leaf in leaves if isinstance(leaf, fx.Node)]
    known = [(parts.get(leaf) or _parts_of_constant(node, leaf)) if _is_complex(leaf) else leaf for leaf in given]
    sources, results = [source for part in known for source in _flat(part)], list[Any]()

    def call(*tensors: Tensor) -> Any:
        each = iter(tensors)
        filled = [next(each) if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, structure)
        return node.target(*args, **kwargs)  # type: ignore[operator]  # an operator

    def on_parts(*tensors: Tensor) -> list[Tensor]:
        each = iter(tensors)
        values = [Parts(next(each), next(each)) if is_parts(part) else next(each) for part in known]
        results[:] = pytree.tree_flatten(_interpreted(body, values), is_leaf=is_parts)
        return [tensor for part in results[0] for tensor in _flat(part)]

    try:
        if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable:
            raise NoRuleError("in place")
        with quiet(), torch.no_grad():
            body = _traced(call, given).graph
            traced = _traced(on_parts, sources).graph
    except Exception as error:  # no rule, or whatever PyTorch asks of its arguments
        reason = f", {error}" if isinstance(error, NoRuleError) else ""
        raise MissingError(node, name_of(node), f"of complex numbers{reason}") from None
    copies = copied_before(node, traced, sources)
    inlined = iter([copies[result] for result in result_of(traced)])
    named = [Parts(next(inlined), next(inlined)) if is_parts(part) else next(inlined) for part in results[0]]
    return pytree.tree_unflatten(named, results[1])


def _traced(call: Callable[..., Any], nodes: Sequence[fx.Node]) -> fx.GraphModule:
    return make_fx(torch.func.functionalize(call))(*(node.meta["val"] for node in nodes))


def _flat(part: Any) -> tuple[Any, ...]:
    return (part.real, part.imaginary) if is_parts(part) else (part,)


def _parts_of_constant(node: fx.Node, constant: fx.Node) -> Parts:
    with node.graph.inserting_before(node):
        both = []
        for target in (torch.ops.aten.real.default, torch.ops.aten.imag.default):
            part = node.graph.call_function(target, (constant,))
            part.meta = {**constant.meta, "val": target(constant.meta["val"])}
            both.append(part)
    return Parts(*both)


def _interpreted(body: fx.Graph, given: list[Any]) -> Any:
    """What `body`, operators that nothing is made of, computes of tensors and parts."""
    values = dict(zip((part for part in body.nodes if part.op == "placeholder"), given, strict=True))
    for node in body.nodes:
        args, kwargs = pytree.tree_map_only(fx.Node, lambda n: values[n], (node.args, node.kwargs))
        if node.op == "output":
            return args[0]
        if node.op == "call_function":
            values[node] = computed(node.target, args, kwargs)
    raise NoRuleError("a graph without a result")
