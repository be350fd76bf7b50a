"""Tensors under several names: a module that is registered twice, or a parameter that two modules share.

The `state_dict` has all of the names, a program works with one of them. The others are names for the same bytes in it,
so that an update carries the trained value under every name, and finished weights load with `strict=True`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from edge_runtime.export.cut.units import CutModel
from edge_runtime.export.ir.graph import StepGraph, Value


def aliases_in(module: nn.Module, cut: CutModel) -> dict[str, str]:
    """The other names of every tensor that the cut model reads."""
    used = {name for unit in (*cut.units, cut.head) for name in unit.tensors}
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    aliases: dict[str, str] = {}
    for shared in names.values():
        known = [name for name in shared if name in used]
        aliases |= {name: known[0] for name in shared if known and name != known[0]}
    return aliases


def name_again(graph: StepGraph, aliases: Mapping[str, str]) -> None:
    """Give what the graph trains its other names, as further buffers with the same bytes."""
    known = {value.name: value for value in graph.state}
    for alias, name in aliases.items():
        if name in known and alias not in known:
            value = known[name]
            graph.state.append(Value(alias, value.shape, value.role, value.dtype, storage=value))
