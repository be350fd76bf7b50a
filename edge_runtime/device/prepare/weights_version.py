"""A name for weights by their content, so that an update says what it started from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from edge_runtime.device.prepare.tensors import TensorFile

_DIGITS = 16
_PIECE_BYTES = 1 << 20


def weights_version(layers: Sequence[TensorFile]) -> str:
    """Hexadecimal digest (16 digits of a SHA-256) of the tensors of `layers`, later files laid over earlier ones.

    It is the same however the tensors are spread over files and whatever else the files say: weights that were merged
    into one file have the version of the files that they came from. Read in pieces of 1 MiB.
    """
    holders = {name: layer for layer in layers for name in layer.names()}
    digest = hashlib.sha256()
    for name in sorted(holders):
        layer = holders[name]
        digest.update(f"{name}\0{layer.dtype(name)}\0{'x'.join(map(str, layer.shape(name)))}\0".encode())
        path, offset, size = layer.place(name)
        with open(path, "rb") as source:
            source.seek(offset, os.SEEK_SET)
            while size > 0 and (piece := source.read(min(size, _PIECE_BYTES))):
                digest.update(piece)
                size -= len(piece)
    return digest.hexdigest()[:_DIGITS]
