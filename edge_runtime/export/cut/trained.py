"""Which units a fine-tuning trains."""

from __future__ import annotations

from device_profiles.errors import UsageError
from device_profiles.work import Grow, Growing, Head, Joint


def trained_units(text: str, count: int) -> Growing:
    """The work that trains these of `count` units, up to the last one, and the head: `6-8`, `6`, `all` or `head`.

    Raises UsageError for any other text, and for units that do not end with the last.
    """
    last = count - 1
    if text == "head":
        return Head(last_unit=last)
    first_text, dash, last_text = ("0", "", "") if text == "all" else text.partition("-")
    try:
        first, end = int(first_text), int(last_text) if dash else last
    except ValueError:
        first = end = -1
    if not 0 <= first <= end == last:
        raise UsageError(
            f"the model has units 0 to {last}, and training ends with the last",
            field="train_units",
            value=text,
            remedy=f"write A-{last}, all, or head",
        )
    return Grow(first_unit=0, last_unit=last) if first == 0 else Joint(first_unit=first, last_unit=last)
