"""`csv:FILE?label=COLUMN` and `parquet:FILE?label=COLUMN`: one example a row, its features the other columns.

Features are numbers, float32 [columns], in the file's order. Labels are whole numbers, or names: the class of a name
is its place among those of the file in alphabetical order, or in `classes=a,b,c`, which every client of a federation
must give alike. `drop=a,b` leaves columns out. Without `test=SHARE` the file has no test split.

Values are taken as they are. What they are normalised with belongs to the model (`profl-edge export --normalise`).
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from device_profiles.errors import DataError, UsageError
from device_profiles.nearest import nearest
from edge_runtime.device.data.arrays import ArraySource
from edge_runtime.device.data.hold_out import hold_out_of, rows_of, values_of_rows
from edge_runtime.device.data.parquet import parquet_rows
from edge_runtime.device.data.query import place_and_options
from edge_runtime.device.data.source import Split, unpacked

_OPTIONS = {
    "label": "label=COLUMN",
    "drop": "drop=COLUMN,COLUMN",
    "classes": "classes=NAME,NAME",
    "test": "test=0.2",
    "seed": "seed=7",
}
_LARGEST = 3.4028234663852886e38
"""Of a float32."""


class Rows(NamedTuple):
    """A table: its columns, and the row with its number in the file, values as text or numbers."""

    columns: list[str]
    rows: Iterable[tuple[int, Sequence[Any]]]


def open_table(kind: str, location: str, spec: str, split: Split, targets: int | None) -> ArraySource:
    """Open a table of `kind` (csv or parquet); `targets` as in `open_data`.

    Raises UsageError for what `spec` lacks, DataError, with the file, the row and the column, for what is no number.
    """
    path, options = place_and_options(location, spec, _OPTIONS)
    hold_out = hold_out_of(options, spec)
    if "label" not in options:
        raise UsageError(
            "does not say which column is the label", field="data", value=spec, remedy=f"write {spec}?label=COLUMN"
        )
    if hold_out is None and split == "test":
        raise DataError(
            f"{path}: has no test split",
            remedy="train and evaluate with test=0.2, which holds a fifth out, or ask for the training examples "
            "(profl-edge eval --split train)",
        )
    if targets not in (None, 1):
        raise UsageError("has one label a row", field="data", value=spec, remedy="npz:FILE may have several numbers")
    with _opened(path, kind) as file:
        table = parquet_rows(file, path) if kind == "parquet" else _csv_rows(file, path)
        named: list[str] = []
        features, spool = _features(Rows(*table), options, spec, path, named)
    labels = _numbers(named, path) if targets else _classes(named, options, path)
    if not labels:
        raise DataError(f"{path}: has no row below its header")
    rows = None
    if hold_out is not None:
        rows = rows_of(hold_out, split, labels, path, targets=targets or 0)
        labels = values_of_rows(labels, rows)
    shape = (len(named), features)
    source = ArraySource(spool, 0, shape, "float32", labels, targets or 0, str(path), None, rows)
    if "classes" in options and not targets:
        source.classes = len(options["classes"].split(","))  # whether or not each of them occurs
    return source


def _opened(path: Path, kind: str) -> IO[Any]:
    try:
        return path.open("rb") if kind == "parquet" else path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _csv_rows(file: IO[str], path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    reader = csv.reader(file, strict=True)

    def lines() -> Iterator[tuple[int, list[str]]]:
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
        except (csv.Error, UnicodeDecodeError) as error:
            reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
            raise DataError(f"{path}: line {reader.line_num + 1}: {reason}") from None

    rows = lines()
    _, header = next(rows, (0, []))
    columns = [name.strip() for name in header]
    if len(set(columns)) < len(columns) or not all(columns):
        raise DataError(f"{path}: its first line must name every column once; add a line with the names")
    return columns, rows


def _features(table: Rows, options: dict[str, str], spec: str, path: Path, named: list[str]) -> tuple[int, IO[bytes]]:
    """How many features there are, and a file of their float32 values; fills `named` with the labels."""
    label = _places([options["label"]], table.columns, spec)[0]
    dropped = _places(options["drop"].split(",") if "drop" in options else [], table.columns, spec)
    taken = [place for place in range(len(table.columns)) if place != label and place not in dropped]
    if not taken:
        raise DataError(f"{path}: has no column beside the label; a table needs at least one feature")

    def values() -> Iterator[bytes]:
        for number, fields in table.rows:
            if len(fields) != len(table.columns):
                raise DataError(f"{path}: row {number} has {len(fields)} fields, the first {len(table.columns)}")
            named.append(str(fields[label]).strip())
            if not named[-1] or fields[label] is None:
                raise DataError(f"{path}: row {number} has no label ({options['label']}); remove the row")
            yield array("f", [_number(fields[at], table.columns[at], number, path) for at in taken]).tobytes()

    return len(taken), unpacked(values())


def _places(names: list[str], columns: list[str], spec: str) -> list[int]:
    for name in names:
        if name not in columns:
            near = nearest(name, columns)
            raise UsageError(
                f"has no column '{name}'",
                field="data",
                value=spec,
                remedy=f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(columns[:8])}",
            )
    return [columns.index(name) for name in names]


def _number(value: Any, column: str, row: int, path: Path) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= _LARGEST:
        shown = "is empty" if value in (None, "") else f"'{value}' is not a finite number"
        raise DataError(
            f"{path}: row {row}: {column}: {shown}", remedy=f"correct it, or leave the column out (drop={column})"
        )
    return number


def _numbers(named: list[str], path: Path) -> array[Any]:
    return array("f", [_number(value, "label", row, path) for row, value in enumerate(named, start=1)])


def _classes(named: list[str], options: dict[str, str], path: Path) -> array[Any]:
    """Whole numbers as they are, also 3.0; names by their place."""
    if "classes" not in options:
        try:
            numbers = [float(name) for name in named]
        except ValueError:
            known = sorted(set(named))
        else:
            for row, number in enumerate(numbers, start=1):
                if not number.is_integer() or abs(number) >= 1 << 53:
                    raise DataError(
                        f"{path}: example {row} has the label {number:g}",
                        remedy="classes are whole numbers or names; to predict numbers: profl-edge export --loss mse",
                    )
            return array("q", map(int, numbers))
    else:
        known = options["classes"].split(",")
    place = {name: index for index, name in enumerate(known)}
    if len(place) < len(known):
        raise DataError(f"{path}: classes={options['classes']} names a class twice")
    for row, name in enumerate(named, start=1):
        if name not in place:
            raise DataError(
                f"{path}: example {row} is of the class '{name}', which is not in classes={','.join(known)}"
            )
    return array("q", [place[name] for name in named])
