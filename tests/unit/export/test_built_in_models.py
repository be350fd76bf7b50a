"""What is refused of a built-in model, before any of it is created."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="models are torch's")

from device_profiles.errors import UsageError
from edge_runtime.export.models import BUILT_IN, MOST, create


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": MOST + 1}, r"^--width 65537: is more than 65536; give less$"),
        ({"width": 4, "classes": 10**8}, r"^--classes 100000000: is more than 65536; give less$"),
        ({"width": 0}, r"needs a width of at least 1"),
        ({"width": 4, "classes": 1}, r"at least 2 classes"),
    ],
)
def test_numbers_that_no_model_can_have_are_one_line(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(name, **options)  # type: ignore[arg-type]  # width and classes are numbers
