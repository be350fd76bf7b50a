"""Weights files in which frozen tensors are bfloat16, as numbers that numpy knows: each is exactly a float32."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save_file

from edge_runtime.device.worker.files import write_tensors

_NARROW = "BF16"


def load_wide(path: Path) -> dict[str, NDArray[Any]]:
    """Tensors of a file by name, those of bfloat16 as float32. Raises as safetensors does."""
    content = path.read_bytes()
    if not _is_narrow(content):
        return load(content)
    tensors: list[tuple[str, dict[str, Any]]] = deserialize(content)  # type: ignore[no-untyped-call]  # its own
    return {name: _array(described) for name, described in tensors}


def save_narrow(
    tensors: Mapping[str, NDArray[Any]], narrow: Set[str], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors, those named in `narrow` as bfloat16, which they are exactly."""
    if not narrow:
        save_file(dict(tensors), path, metadata=metadata)
        return
    written = []
    for name, value in tensors.items():
        kind, data = str(value.dtype), np.ascontiguousarray(value)
        if name in narrow:
            kind, data = "bfloat16", (data.view(np.uint32) >> 16).astype(np.uint16)
        shown: Any = data.reshape(value.shape)
        written.append((name, kind, memoryview(shown)))
    write_tensors(str(path), written, metadata)


def _is_narrow(content: bytes) -> bool:
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise SafetensorError(str(error)) from None
    return any(entry.get("dtype") == _NARROW for name, entry in header.items() if name != "__metadata__")


def _array(described: Mapping[str, Any]) -> NDArray[Any]:
    kind, shape, data = described["dtype"], described["shape"], described["data"]
    if kind == _NARROW:
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    return np.frombuffer(data, {"F32": np.float32, "I64": np.int64}[kind]).reshape(shape)
