"""Orders as a device takes them: decoded strictly, and every name in them checked before it becomes one of a file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from device_profiles.contract import MANIFEST_NAME
from device_profiles.errors import FormatError
from device_profiles.federation import (
    BUNDLE_FOLDER,
    WEIGHTS_FOLDER,
    Document,
    ProfileOrder,
    SentFile,
    TrainOrder,
    read_document,
)

T = TypeVar("T", bound=Document)
MOST_BYTES = 8 << 20
"""Of an order's document."""
_MOST_FILES = 10_000
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,150}")
_SOURCE = "the server's order"


def read_order(raw: bytes, kind: type[T]) -> T:
    """The order in a document; raises FormatError."""
    if len(raw) > MOST_BYTES:
        raise FormatError(f"{_SOURCE}: {len(raw)} bytes are more than an order has")
    order = read_document(raw, kind, _SOURCE)
    if isinstance(order, (ProfileOrder, TrainOrder)):
        _check_files(order.files)
    if isinstance(order, TrainOrder):
        _check_weights(order)
        if order.prefix is not None and not _PART.fullmatch(order.prefix):
            raise FormatError(f"{_SOURCE}: prefix: '{_short(order.prefix)}' cannot name a folder")
        if order.steps is not None and order.epochs is not None:
            raise FormatError(f"{_SOURCE}: steps: cannot be given with epochs")
    return order


def _check_files(files: Mapping[str, SentFile]) -> None:
    """Raise FormatError for names that are no places below a folder, or that are in each other's way."""
    if len(files) > _MOST_FILES:
        raise FormatError(f"{_SOURCE}: files: {len(files)} are more than a device takes")
    if BUNDLE_FOLDER + MANIFEST_NAME not in files:
        raise FormatError(f"{_SOURCE}: files: {BUNDLE_FOLDER}{MANIFEST_NAME} is missing")
    for name in files:
        parts = name.split("/")
        place = f"{parts[0]}/"
        if place not in (BUNDLE_FOLDER, WEIGHTS_FOLDER) or not 2 <= len(parts) <= 4:
            raise FormatError(f"{_SOURCE}: files: '{_short(name)}' is no place of a task's file")
        if not all(_PART.fullmatch(part) for part in parts):
            raise FormatError(f"{_SOURCE}: files: '{_short(name)}' cannot name a file")
        if any("/".join(parts[:end]) in files for end in range(1, len(parts))):
            raise FormatError(f"{_SOURCE}: files: '{_short(name)}' lies in a file")


def _check_weights(order: TrainOrder) -> None:
    unknown = _unknown(order.weights, order.files)
    if unknown is not None:
        raise FormatError(f"{_SOURCE}: weights: '{_short(unknown)}' is none of its files")


def _unknown(names: Collection[str], files: Mapping[str, SentFile]) -> str | None:
    return next((name for name in names if name not in files or not name.startswith(WEIGHTS_FOLDER)), None)


def _short(name: str) -> str:
    return ascii(name[:80])[1:-1]
