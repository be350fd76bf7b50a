"""`npz:FILE?test=0.2` and `npz:FILE?test=0.2&seed=7`: a share of the examples that is held out for testing.

The draw keeps the classes in proportion and follows from the labels and the seed alone: every command that names the
same text holds out the same examples.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from device_profiles.errors import DataError, UsageError
from edge_runtime.device.data.source import Clients, Split, sample

_FORM = "npz:FILE?test=0.2 holds a fifth out, npz:FILE?test=0.2&seed=7 another fifth"
_SEEDS = 1 << 63


class HoldOut(NamedTuple):
    """The share of the examples that is held out, and the seed of the draw."""

    share: float
    seed: int


def file_and_hold_out(location: str, spec: str) -> tuple[Path, HoldOut | None]:
    """The file of `location`, and what stands behind its question mark; a file that is called so is taken as it is.

    Raises UsageError where that is no share.
    """
    name, mark, text = location.rpartition("?")
    if not mark or Path(location).exists():
        return Path(location), None
    pairs = [part.partition("=")[::2] for part in text.split("&")]
    given = dict(pairs)
    if len(given) < len(pairs) or "test" not in given or not given.keys() <= {"test", "seed"}:
        raise UsageError(f"'?{text}' is not a hold-out", field="data", value=spec, remedy=_FORM)
    return Path(name), hold_out_of(given, spec)


def hold_out_of(options: Mapping[str, str], spec: str) -> HoldOut | None:
    """What `test` and `seed` of a data set's options say; None without `test`. Raises UsageError for no share."""
    if "test" not in options:
        if "seed" in options:
            raise UsageError("'seed' requires 'test'", field="data", value=spec, remedy="add test=0.2, or leave it out")
        return None
    try:
        share, seed = float(options["test"]), int(options.get("seed", "0"))
    except ValueError:
        text = "&".join(f"{key}={options[key]}" for key in ("test", "seed") if key in options)
        raise UsageError(f"'?{text}' is not written with numbers", field="data", value=spec, remedy=_FORM) from None
    if not 0.0 < share < 1.0 or not 0 <= seed < _SEEDS:
        raise UsageError(
            "the share is above 0 and below 1, the seed a whole number from 0", field="data", value=spec, remedy=_FORM
        )
    return HoldOut(share, seed)


def rows_of(hold_out: HoldOut, split: Split, labels: Sequence[float], path: Path, *, targets: int = 0) -> array[int]:
    """The file's rows of one split, ascending; `labels` are `targets` numbers for each example, or one label (0).

    Raises DataError where nothing would be left on either side.
    """
    examples = len(labels) // (targets or 1)
    test = sample(labels, round(hold_out.share * examples), rows=targets, seed=hold_out.seed)
    if not 0 < len(test) < examples:
        raise DataError(
            f"{path}: a share of {hold_out.share:g} of {examples} examples leaves none for "
            f"{'training' if len(test) else 'testing'}"
        )
    if split == "test":
        return test
    held = set(test)
    return array("q", (row for row in range(examples) if row not in held))


def of_rows(clients: Clients | None, rows: array[int] | None) -> Clients | None:
    """The clients of these rows."""
    if clients is None or rows is None:
        return clients
    return clients._replace(ids=array("q", (clients.ids[row] for row in rows)))


def values_of_rows(values: array[Any], rows: array[int], each: int = 1) -> array[Any]:
    """Of `values`, which are `each` for a row, those of these rows."""
    return array(values.typecode, (value for row in rows for value in values[row * each : (row + 1) * each]))
