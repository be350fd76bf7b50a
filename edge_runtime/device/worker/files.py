"""Safetensors written straight from the memory of the tensors, whole or not at all."""

from __future__ import annotations

from device_profiles.errors import FormatError
from device_profiles.outputs import OutputFile
from device_profiles.seal import SEAL_KEY, UNSEALED, sealed
from edge_runtime.device.worker.text import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_ALIGNMENT_BYTES = 8
_LENGTH_BYTES = 8
_CODES = {"float32": "F32", "bfloat16": "BF16", "int64": "I64"}
_ITEM_BYTES = {"F32": 4, "BF16": 2, "I64": 8}


def write_tensors(
    path: str, tensors: Sequence[tuple[str, str, memoryview[Any]]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write (name, dtype, contiguous view) as safetensors to `path`, whole or not at all, with a digest of the file.

    Raises FormatError for a type that is not written here, OSError with `path` where the disk does not take it.
    """
    header: dict[str, object] = {"__metadata__": {SEAL_KEY: UNSEALED, **(metadata or {})}}
    for name, dtype, _ in tensors:
        if dtype not in _CODES:
            raise FormatError(f"{path}: tensor '{name}' has type {dtype}, which is not written here")
    # Wider elements first keeps every tensor aligned to its element, as the safetensors package writes them.
    ordered = sorted(tensors, key=lambda tensor: (-_ITEM_BYTES[_CODES[tensor[1]]], tensor[0]))
    position = 0
    for name, dtype, view in ordered:
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(view.shape or ()),
            "data_offsets": [position, position + view.nbytes],
        }
        position += view.nbytes
    encoded = json_text(header).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT_BYTES)
    pieces = [view.cast("B") for _, _, view in ordered if view.nbytes]
    start = sealed(len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded, pieces)
    try:
        with OutputFile(path) as output:
            output.write(start)
            for piece in pieces:
                output.write(piece)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
