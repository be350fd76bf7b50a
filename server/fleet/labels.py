"""Which methods train a model with other labels than one class for each example."""

from __future__ import annotations

from device_profiles.errors import UsageError
from server.fleet.fleet import Fleet

_BY_CLASS = {
    "heterofl": "leaves the classes out of the loss that a client has no example of",
    "depthfl": "compares the probabilities that its classifiers give to the classes",
}
"""Methods that ask for the class of an example, and what for."""


def check_labels(fleet: Fleet, positions: int | None = None) -> None:
    """Raise UsageError where the fleet's method has no use for numbers in the place of labels, or for a label for each
    of the `positions` of an example."""
    reason = _BY_CLASS.get(fleet.method.name)
    if reason is None or (fleet.model.loss != "mse" and positions is None):
        return
    what = f"labels of {positions} tokens or pixels" if positions is not None else "the loss mse"
    raise UsageError(
        f"{reason}, and cannot be combined with {what}",
        field="method.name",
        value=fleet.method.name,
        remedy="use another method",
    )
