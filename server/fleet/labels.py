"""What of a model's labels a fleet trains with."""

from __future__ import annotations

from device_profiles.errors import UsageError
from device_profiles.settings import THE_MODEL


def check_one_label(positions: int | None) -> None:
    """Raise UsageError where a model has a label for each of the `positions` of an example."""
    if positions is not None:
        raise UsageError(
            (THE_MODEL, f" returns logits for each of the {positions} tokens or pixels of an example"),
            remedy="a fleet trains models with one label for an example; train this one by `profl-edge train`",
        )
