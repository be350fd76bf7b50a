"""Rows of a Parquet file, read by pyarrow, which is asked for when it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from device_profiles.errors import DataError
from device_profiles.extras import extra_remedy

_ROWS_AT_ONCE = 1024


def parquet_rows(file: IO[bytes], path: Path) -> tuple[list[str], Iterator[tuple[int, tuple[Any, ...]]]]:
    """Names of the columns, and every row with its number from 1.

    Raises DataError, naming the file, where it is no Parquet file or pyarrow is missing.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(f"{path}: Parquet requires pyarrow", remedy=extra_remedy("parquet")) from None
    try:
        opened = parquet.ParquetFile(file)
    except Exception as error:  # pyarrow has a tree of errors of its own
        raise _unreadable(path, error) from None
    return list(opened.schema_arrow.names), _rows(opened, path)


def _rows(opened: Any, path: Path) -> Iterator[tuple[int, tuple[Any, ...]]]:
    number = 0
    try:
        for batch in opened.iter_batches(_ROWS_AT_ONCE):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield number, row
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: not a readable Parquet file: {reason}")
