"""What a node of an exported graph is: its operator, its module, its arguments, and whose bytes it shows."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable
from typing import Any

import torch

from edge_runtime.export.operators.shape import VIEWS

CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async")
"""What PyTorch's tracer writes down for itself and no value depends on."""


def name_of(node: torch.fx.Node, *, bare: bool = True) -> str:
    """The ATen operator's name without its overload; `bare`: without the underscore of one in place, too."""
    name = str(node.target).removeprefix("aten.").split(".")[0]
    return name.rstrip("_") if bare and name not in CHECKS else name


def place_of(node: torch.fx.Node) -> str:
    """The node's module, as a sentence names it."""
    module = module_of(node)
    return f"module '{module}'" if module else "the model's own forward"


def line_of(node: torch.fx.Node) -> str:
    """Where the user's source calls the operator, in brackets; empty where that is not known."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in frames if f"{os.sep}torch{os.sep}" not in file]
    return f" (line {own[-1][1]} of {os.path.basename(own[-1][0])})" if own else ""


def root_of(node: torch.fx.Node) -> torch.fx.Node:
    """The node whose bytes `node` shows, through views and operators in place."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], torch.fx.Node):
        name = name_of(node, bare=False)
        if node.target is not operator.getitem and name not in VIEWS and not name.endswith("_"):
            break
        node = node.args[0]
    return node


def may_overlap(a: torch.fx.Node, b: torch.fx.Node) -> bool:
    """Whether two nodes may show the same bytes; two parts of one split do not."""
    for first, second in zip(_parts(a), _parts(b), strict=False):
        if first != second:
            return first[0] is not second[0]
    return True


def _parts(node: torch.fx.Node) -> list[tuple[torch.fx.Node, object]]:
    """What was split, and which part was taken of it, from the root on."""
    found: list[tuple[torch.fx.Node, object]] = []
    root = root_of(node)
    while node is not root:
        before = node.args[0]
        assert isinstance(before, torch.fx.Node)
        if node.target is operator.getitem:
            found.append((before, node.args[1]))
        node = before
    return found[::-1]


def counts_batches(node: torch.fx.Node, state: dict[str, str]) -> bool:
    """Whether the node only increments a BatchNorm's `num_batches_tracked`, which training here leaves alone."""
    first = node.args[0] if node.args else None
    # A BatchNorm that is run again increments what its first run left.
    name = state.get(root_of(first).name, "") if isinstance(first, torch.fx.Node) else ""
    return name.endswith("num_batches_tracked")


def is_several(node: torch.fx.Node) -> bool:
    """Whether a node has several results, each of which another node takes."""
    return isinstance(node.meta.get("val"), (tuple, list))


def target_of(node: torch.fx.Node) -> str:
    """The operator that the node calls, or takes a result of."""
    whole = node.args[0] if node.target is operator.getitem else node
    return str(whole.target) if isinstance(whole, torch.fx.Node) else str(node.target)


def module_of(node: torch.fx.Node) -> str:
    """Dotted path of the module that the node was traced in; empty in the model's own forward."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def arguments_of(node: torch.fx.Node) -> dict[str, Any]:
    """The node's arguments by name, with the schema's defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # a symbolic size or a Python function, not an operator
        return {}
    named: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            named[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            named[argument.name] = node.kwargs[argument.name]
        else:
            named[argument.name] = argument.default_value
    # The same operator calls its input one thing as a function and another in place.
    for name, other in (("self", "input"), ("input", "self")):
        if name in named:
            named.setdefault(other, named[name])
    return named


def copied_before(
    node: torch.fx.Node, body: torch.fx.Graph, sources: Iterable[torch.fx.Node]
) -> dict[torch.fx.Node, torch.fx.Node]:
    """Copies of the calls of `body` in front of `node`, whose place in the user's source they have, on `sources` in the
    place of the body's inputs."""
    known = dict(zip((part for part in body.nodes if part.op == "placeholder"), sources, strict=True))
    with node.graph.inserting_before(node):
        for part in body.nodes:
            if part.op == "call_function":
                known[part] = node.graph.node_copy(part, lambda argument: known[argument])
                known[part].meta = {**node.meta, "val": part.meta.get("val")}
    return known


def result_of(body: torch.fx.Graph) -> Any:
    """What a graph returns."""
    (result,) = (part.args[0] for part in body.nodes if part.op == "output")
    return result
