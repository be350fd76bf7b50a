"""Which methods train a model with other labels than one class for each example."""

from __future__ import annotations

from device_profiles.errors import UsageError
from server.fleet.fleet import Fleet
from server.methods.method import Method


def check_labels(fleet: Fleet, method: Method, positions: int | None = None) -> None:
    """Raise UsageError where `method` says by `by_class` that it goes by the class of an example, and the fleet has
    numbers in the place of labels, or its model a label for each of the `positions` of an example."""
    reason: str | None = getattr(method, "by_class", None)
    if reason is None or (fleet.model.loss != "mse" and positions is None):
        return
    what = f"labels of {positions} tokens or pixels" if positions is not None else "the loss mse"
    raise UsageError(
        f"{reason}, and cannot be combined with {what}",
        field="method.name",
        value=method.name,
        remedy="use another method",
    )
