"""Weights of a bundle's model in memory: its initial ones with files laid over them, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.laid_weights import LaidWeights
from server.averaging.weights_files import load_wide
from server.rounds.run_state import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeWeights:
    """Every tensor of a bundle's weights, what they were before anything was laid over them, and their version."""

    tensors: Weights
    initial: Weights
    version: str


def lay_weights(bundle: Bundle, files: Sequence[Path]) -> WholeWeights:
    """The initial weights of `bundle` with `files` laid over them, later ones over earlier ones.

    Raises FormatError, naming `--weights` and the file, for tensors that are not the bundle's or not as it has them.
    """
    laid = LaidWeights(bundle, files)
    initial: Weights = load_wide(bundle.weights_path())
    tensors = dict(initial)
    for path in files:
        tensors |= load_wide(path)
    return WholeWeights(tensors=tensors, initial=initial, version=laid.version())
