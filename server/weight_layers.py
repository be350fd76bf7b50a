"""Weights of a bundle's model: its initial ones with files laid over them, in order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

from device_profiles.errors import FormatError
from edge_runtime.device.bundle import Bundle
from edge_runtime.device.tensors import TensorFile
from edge_runtime.device.weights_version import weights_version
from edge_runtime.export.foreign_weights import check_names, refuse_pickle, to_float32
from server.run_state import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class LaidWeights:
    """Every tensor of a bundle's weights, what they were before anything was laid over them, and their version."""

    tensors: Weights
    initial: Weights
    version: str


def lay_weights(bundle: Bundle, files: Sequence[Path]) -> LaidWeights:
    """The initial weights of `bundle` with `files` laid over them, later ones over earlier ones.

    Raises FormatError, naming `--weights` and the file, for tensors that are not the bundle's or not as it has them.
    """
    initial_path = bundle.weights_path()
    with ExitStack() as stack:
        initial = stack.enter_context(closing(TensorFile(initial_path)))
        layers = [initial]
        for path in files:
            try:
                layers.append(stack.enter_context(closing(_opened(path, initial))))
            except FormatError as error:
                raise FormatError(f"--weights {error}") from None
        version = weights_version(layers)
    first: Weights = load_file(initial_path)
    tensors = dict(first)
    for path in files:
        tensors |= load_file(path)
    return LaidWeights(tensors=tensors, initial=first, version=version)


def _opened(path: Path, initial: TensorFile) -> TensorFile:
    refuse_pickle(path)
    try:
        opened = TensorFile(path)
    except FormatError as error:
        half = any(f"has type {kind}" in str(error) for kind in ("F16", "F64"))
        remedy = f"; convert it: {to_float32(path)}" if half and "python -c" not in str(error) else ""
        raise FormatError(f"{error}{remedy}") from None
    check_names(path, opened.names(), initial.names())
    for name in opened.names():
        if opened.dtype(name) == "bfloat16":
            raise FormatError(f"{path}: tensor '{name}' is bfloat16, expected float32; convert it: {to_float32(path)}")
        if name not in initial:
            raise FormatError(f"{path}: tensor '{name}' is not in {initial.path}, whose blocks are other ones")
        opened.check(name, initial.dtype(name), initial.shape(name))
    return opened
