"""Mean and deviation of each channel or feature of a data set, as `profl-edge export --mean --std` takes them."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from device_profiles.errors import DataError
from edge_runtime.device.data.source import Part, Pixels, sample

if TYPE_CHECKING:
    from edge_runtime.device.data.arrays import ArraySource


def moments(source: Pixels | ArraySource, spec: str, *, limit: int) -> tuple[list[float], list[float]]:
    """Means and standard deviations over at most `limit` examples, drawn in proportion to the classes.

    Pixels count between 0 and 1. A deviation of 0 becomes 1, so that a constant feature stays 0. Raises DataError for
    tokens, which have no mean.
    """
    pixels = not hasattr(source, "input_shape")
    shape: tuple[int, ...] = source.shape if hasattr(source, "shape") else source.input_shape
    if getattr(source, "input_dtype", "float32") != "float32":
        raise DataError("holds tokens, which have no mean", field="data", value=spec)
    rows, each = shape[0], math.prod(shape[1:])
    kind, scale = ("B", 1 / 255) if pixels else ("f", 1.0)
    first: list[float] = []
    sums, squares, count = [0.0] * rows, [0.0] * rows, 0
    parts = source.parts() if callable(source.parts) else source.parts
    places = list(_places(parts, math.prod(shape) * (1 if pixels else 4)))
    for position in sample(source.labels, limit, rows=getattr(source, "targets", 0)):
        file, offset, size = places[position]
        values = array(kind, os.pread(file, size, offset))
        if len(values) != rows * each:
            raise DataError(f"{source.origin}: ends inside example {position}")
        # Distances from the first example's values: their squares lose nothing where the mean is large.
        first = first or [values[row * each] for row in range(rows)]
        for row in range(rows):
            moved = [value - first[row] for value in values[row * each : (row + 1) * each]]
            sums[row] += math.fsum(moved)
            squares[row] += math.fsum(value * value for value in moved)
        count += each
    shifts = [total / count for total in sums]
    deviations = [math.sqrt(max(0.0, square / count - shift**2)) for square, shift in zip(squares, shifts, strict=True)]
    means = [(start + shift) * scale for start, shift in zip(first, shifts, strict=True)]
    return means, [deviation * scale or 1.0 for deviation in deviations]


def _places(parts: list[Part], size: int) -> Iterator[tuple[int, int, int]]:
    """File, offset and bytes of every example."""
    for part in parts:
        if len(part) == 2:
            file, packed = part
            offsets: Any = array("q", packed)
        else:
            file, start, step, count = part
            offsets = range(start, start + step * count, step)
        yield from ((file, offset, size) for offset in offsets)
