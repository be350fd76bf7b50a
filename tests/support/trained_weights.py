"""Weights that look trained, for tests of numerics."""

from __future__ import annotations

import torch


def draw_running_statistics(weights: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    """Replace running statistics in place: those of a trained prefix, not the trivial initial ones."""
    for key, value in weights.items():
        if key.endswith("running_mean"):
            weights[key] = 0.1 * torch.randn(value.shape, generator=generator)
        elif key.endswith("running_var"):
            weights[key] = 0.5 + torch.rand(value.shape, generator=generator)
