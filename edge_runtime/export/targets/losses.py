"""Which losses a model can be trained with."""

from __future__ import annotations

from device_profiles.errors import UsageError
from device_profiles.manifest import Loss
from device_profiles.settings import THE_MODEL, Setting
from edge_runtime.export.plan.block_model import BlockModel


def check_loss(loss: Loss, source: BlockModel) -> None:
    """Raise UsageError, naming the option, where `source` cannot be trained with `loss`."""
    if source.positions is not None:
        _check_positions(loss, source.positions)
    if loss.name != "mse":
        return
    if loss.label_smoothing > 0:
        raise UsageError(
            (Setting("label_smoothing"), " requires ", Setting("loss", "cross-entropy")),
            remedy="leave one of the two out",
        )
    if source.log_probabilities:
        raise UsageError(
            "the model ends with log_softmax, which only the cross-entropy takes over", field="loss", value="mse"
        )


def check_one_label(source: BlockModel, target: str) -> None:
    """Raise UsageError where an example has several labels, which `target` has no use for."""
    if source.positions is not None:
        raise UsageError(
            (THE_MODEL, f" returns logits for each of the {source.positions} tokens or pixels of an example"),
            field="target",
            value=target,
            remedy="only the native target trains it",
        )


def _check_positions(loss: Loss, positions: int) -> None:
    each = f"cannot be combined with a label for each of the {positions} tokens or pixels of an example"
    if loss.name != "cross-entropy":
        raise UsageError(each, field="loss", value=loss.name, remedy="leave it out")
