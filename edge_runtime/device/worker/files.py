"""Files that appear whole or not at all, and safetensors written straight from the memory of the tensors."""

from __future__ import annotations

import os

from device_profiles.errors import FormatError
from edge_runtime.device.worker.text import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any

_ALIGNMENT_BYTES = 8
_LENGTH_BYTES = 8
_CODES = {"float32": "F32", "bfloat16": "BF16", "int64": "I64"}
_ITEM_BYTES = {"F32": 4, "BF16": 2, "I64": 8}


class AtomicFile:
    """A temporary file beside `path`: renamed into place when the `with` ends, removed when its body raises."""

    def __init__(self, path: str) -> None:
        folder, name = os.path.split(path)
        self._path = path
        self._temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}")

    def __enter__(self) -> AtomicFile:
        self._file = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return self

    def write(self, data: bytes | memoryview[Any]) -> None:
        """Append bytes."""
        rest = memoryview(data)
        while len(rest):
            rest = rest[os.write(self._file, rest) :]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                os.fsync(self._file)
                os.fchmod(self._file, 0o644)
                os.replace(self._temporary, self._path)
        except BaseException:
            error = error or KeyboardInterrupt()
            raise
        finally:
            os.close(self._file)
            if error is not None:
                os.unlink(self._temporary)


def write_tensors(
    path: str, tensors: Sequence[tuple[str, str, memoryview[Any]]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write (name, dtype, contiguous view) as safetensors to `path`, whole or not at all.

    Raises FormatError for a type that is not written here, OSError with `path` where the disk does not take it.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
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
    try:
        with AtomicFile(path) as output:
            output.write(len(encoded).to_bytes(_LENGTH_BYTES, "little"))
            output.write(encoded)
            for _, _, view in ordered:
                if view.nbytes:
                    output.write(view.cast("B"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
