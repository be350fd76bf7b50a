"""Sizes as people write them."""

from __future__ import annotations

import re

MEGABYTE = 1 << 20
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes of a size with a unit, as 128MB; 1 MB = 1,048,576 bytes. Raises ValueError that says how to write it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(i?B)?", text, re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[f"{match[2].upper()}B"]) if match else 0
    if size <= 0:
        raise ValueError(f"'{text}' is not a size above zero; write it as 128MB")
    return size
