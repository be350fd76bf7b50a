"""Frozen weights that a file keeps in bfloat16: a program reads them as they are, and widens them for each use.

An operation gets its own wide copy right before it. What is read anew from the file for every use is in the arena
during the widening alone, in half its bytes.
"""

from __future__ import annotations

from collections.abc import Set

from edge_runtime.export.ir.graph import Argument, Operation, StepGraph, Value


def narrow_frozen(graph: StepGraph, names: Set[str]) -> StepGraph:
    """The same graph, whose frozen inputs of these names are bfloat16."""
    narrow = {value for value in graph.inputs if value.role == "frozen" and value.name in names}
    if not narrow:
        return graph
    operations: list[Operation] = []
    prefix = graph.prefix_operations
    for position, operation in enumerate(graph.operations):
        roots = list(dict.fromkeys(value.root for value in operation.reads if value.root in narrow))
        wide = {root: Value(f"{root.name}.wide{len(operations)}", root.shape, "temporary") for root in roots}
        operations += [Operation("widen", (root,), (value,)) for root, value in wide.items()]
        operations.append(operation)
        operation.arguments = tuple(_widened(argument, wide) for argument in operation.arguments)
        prefix += len(wide) * (position < graph.prefix_operations)
    graph.operations, graph.prefix_operations = operations, prefix
    for value in narrow:
        value.dtype = "bfloat16"
    return graph


def _widened(argument: Argument, wide: dict[Value, Value]) -> Argument:
    """A tensor's wide copy, or what shows it in another shape."""
    if not isinstance(argument, Value) or argument.root not in wide:
        return argument
    copy = wide[argument.root]
    if argument.storage is None:
        return copy
    return Value(argument.name, argument.shape, "temporary", storage=copy, storage_offset=argument.offset)
