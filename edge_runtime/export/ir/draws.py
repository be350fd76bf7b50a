"""Draws that are written out: `floor(share + rand)`, which is 1 with the probability `share` and else 0."""

from __future__ import annotations

import torch

_ADD, _FLOOR = ("aten.add.Tensor", "aten.add.Scalar"), ("aten.floor.default", "aten.floor_.default")


def share_of(floor: torch.fx.Node) -> float | None:
    """The share of a node that is such a draw; None for any other."""
    total = floor.args[0] if str(floor.target) in _FLOOR else None
    if not isinstance(total, torch.fx.Node) or str(total.target) not in _ADD or total.kwargs:
        return None
    number, share = total.args
    if not isinstance(number, torch.fx.Node) or str(number.target) != "aten.rand.default":
        return None
    alone = all(user is floor for user in total.users) and all(user is total for user in number.users)
    return float(share) if alone and isinstance(share, float) and 0.0 < share < 1.0 else None


def is_part(node: torch.fx.Node) -> bool:
    """Whether a node is nothing but a part of such a draw."""
    if str(node.target) in _ADD:
        return bool(node.users) and all(share_of(user) is not None for user in node.users)
    return str(node.target) == "aten.rand.default" and bool(node.users) and all(is_part(user) for user in node.users)
