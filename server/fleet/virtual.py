"""Sections of the fleet file that only virtual clients have a use for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from server.fleet.population import Positive


class PromiseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a simulation takes memory promises from.

    Attributes:
        source: `runtime`, the light runtime's own plans; `pytorch`, what PyTorch keeps for a step; `file`, a table.
        file: JSON object of promises in bytes by what works are called (`grow-block2`, `narrow-0.5`), or of them below
            `promises`.
        base_mb: what a process takes beside the plan (`runtime`) or the tensors (`pytorch`).
        width: count for this width instead of the model's own, so that a narrow network can stand for a wide one.
        batch: count for this batch.
        recompute: `runtime`: what is too large is trained with recomputation, as `planned` does on devices.
    """

    source: Literal["runtime", "pytorch", "file"] = "runtime"
    file: str | None = None
    base_mb: Annotated[float, msgspec.Meta(ge=0)] | None = None
    width: Positive | None = None
    batch: Annotated[int, msgspec.Meta(ge=2)] | None = None
    recompute: bool = False


class SimulationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `simulation` engine: where it computes, how many clients at once, and what it keeps.

    Attributes:
        device: `auto` is a GPU where there is one.
        stack: clients trained as one, with stacked parameters; by default 1 on a CPU and 20 on a GPU.
        cache_mb: outputs of frozen blocks that are kept while a stage lasts.
    """

    device: str = "auto"
    stack: Positive | None = None
    cache_mb: Annotated[float, msgspec.Meta(ge=0)] = 4096
