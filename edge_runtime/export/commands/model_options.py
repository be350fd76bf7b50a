"""Options that say which model is meant, for every command of the host."""

from __future__ import annotations

import click

from device_profiles.errors import UsageError

width_option = click.option("--width", type=int, help="Channels of a built-in model's first convolution.")
input_option = click.option(
    "--input",
    "input_text",
    help="Shape of one example: 3x32x32 (images), 6x128 (channels over time), 16 (features) "
    "[default: that of a built-in model, else 3x32x32].",
)
input_dtype_option = click.option(
    "--input-dtype",
    type=click.Choice(["float32", "int64"]),
    help="Type of the input; int64 for tokens [default: that of a built-in model, else float32].",
)
classes_option = click.option(
    "--classes", type=int, help="Number of classes [default: that of a built-in model, else 10]."
)
head_option = click.option("--head", help="Module where the classifier head begins, if it is not recognised.")


def asked_or_usual(model: str, input_text: str | None, classes: int | None) -> tuple[tuple[int, ...], int]:
    """Shape of an example and number of classes: as asked for, else what the built-in model usually has."""
    from edge_runtime.export.models import BUILT_IN

    usual = BUILT_IN.get(model)
    usual_shape, usual_classes = ((3, 32, 32), 10) if usual is None else (usual.input_shape, usual.classes)
    shape = usual_shape if input_text is None else parse_shape(input_text)
    return shape, usual_classes if classes is None else classes


def parse_shape(text: str) -> tuple[int, ...]:
    """`3x32x32` (or `64`) as a tuple; raises UsageError naming the option."""
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(
            "write the extents of one example, such as 3x32x32, 6x128 or 16", field="input_shape", value=text
        )
    return shape
