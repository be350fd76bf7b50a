"""From weights of a bundle to the finished model, with what of them was never trained."""

from __future__ import annotations

import msgspec
import numpy as np

from device_profiles.errors import UsageError
from device_profiles.manifest import Manifest
from server.finished.weight_layers import WholeWeights

_HEAD = "the head"
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What `profl-server finish --json` says: the file, the weights' version, and parts at their initial values."""

    output: str
    version: str
    tensors: int
    initial: tuple[str, ...]


def initial_parts(manifest: Manifest, laid: WholeWeights) -> tuple[str, ...]:
    """Parts of the model that have nothing but initial values: `block 2`, `the head`."""
    units = manifest.model.units
    parts = {
        f"block {block.index}": [
            name for unit in units[block.first_unit : block.last_unit + 1] for name in unit.tensors
        ]
        for block in manifest.partition.blocks
    }
    parts[_HEAD] = list(manifest.model.head)
    return tuple(part for part, names in parts.items() if _untrained(names, laid))


def _untrained(names: list[str], laid: WholeWeights) -> bool:
    """Whether every parameter among `names` is as it was; a part without any is as it should be."""
    parameters = [name for name in names if name in laid.initial and not name.endswith(_STATISTICS)]
    return bool(parameters) and all(np.array_equal(laid.tensors[name], laid.initial[name]) for name in parameters)


def refuse_initial(parts: tuple[str, ...], *, allowed: bool) -> None:
    """Raise UsageError, naming the parts that were never trained, unless they are `allowed`."""
    if parts and not allowed:
        raise UsageError(
            f"--weights: {', '.join(parts)} still at the bundle's initial values; give their trained weights "
            "as well (--weights may be repeated), or allow this with --initial-blocks"
        )
