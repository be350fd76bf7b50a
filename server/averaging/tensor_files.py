"""Tensors of a run on disk: whole or not at all, and with a digest of the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from device_profiles.errors import ExecutionError
from device_profiles.files import atomic_file
from device_profiles.seal import SEAL_KEY, UNSEALED, seal


def save_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file. Raises ExecutionError, naming it, where the disk does not take it."""
    try:
        with atomic_file(path) as temporary:
            save_file(dict(tensors), temporary, metadata={**(metadata or {}), SEAL_KEY: UNSEALED})
            seal(str(temporary))
    except SafetensorError as error:
        raise ExecutionError(f"{path}: {error}; make room, or choose another folder with -o") from None
