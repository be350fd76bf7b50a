"""The optimizers of training steps, one file each. A new one is a file here and a line in this table.

What else it needs: its row in `device_profiles/optimizer.py` and its kernel's row in `operators.txt`.
"""

from __future__ import annotations

from device_profiles.optimizer import Optimizer
from edge_runtime.export.optimizers.adamw import AdamW
from edge_runtime.export.optimizers.optimizer import UpdateRule
from edge_runtime.export.optimizers.sgd import SGD

RULES: dict[str, type[UpdateRule]] = {"sgd": SGD, "adamw": AdamW}


def update_rule(settings: Optimizer, micro_batches: int) -> UpdateRule:
    """The optimizer of a step that is made of `micro_batches` executions, as the step builder takes it."""
    return RULES[settings.name](settings, micro_batches)
