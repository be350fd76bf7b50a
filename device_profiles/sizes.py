"""Sizes as people write them."""

from __future__ import annotations

import re

MEGABYTE = 1 << 20
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_LARGEST = (1 << 63) - 1


def parse_size(text: str) -> int:
    """Bytes of a size with a unit, as 128MB; 1 MB = 1,048,576 bytes. Raises ValueError that says how to write it."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *(?:([KMG])(i?B)?|B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"'{text}' is not a size above zero; write it as 128MB")
    if re.fullmatch(r"[0-9.]+", text.strip()) and float(match[1]) > 0:
        raise ValueError(f"'{text}' has no unit; write {match[1]}MB (or KB, GB; B for bytes), as 128MB")
    size = float(match[1]) * _UNITS[f"{(match[2] or '').upper()}B"]
    if size > _LARGEST:
        raise ValueError(f"'{text}' is more than any memory; write a size as 128MB")
    if int(size) <= 0:
        raise ValueError(f"'{text}' is not a size above zero; write it as 128MB")
    return int(size)
