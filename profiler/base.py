"""`python -m profiler.base BUNDLE DATA`: resident bytes of a training process that has loaded all but a program."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> int:
    """Print the bytes. Modules and files in the order of `profl-edge train`, so that it is its `base_bytes`."""
    from edge_runtime.device.cli import main as _command_line  # noqa: F401  # its click and msgspec count as well
    from edge_runtime.device.process import make_light, resident_bytes

    make_light()
    importlib.import_module("edge_runtime.device.train")
    import numpy as np

    from edge_runtime.device.bundle import open_bundle
    from edge_runtime.device.data import open_data
    from edge_runtime.device.order import Batches
    from edge_runtime.device.tensors import TensorFile

    bundle = open_bundle(Path(sys.argv[1]))
    shape = bundle.manifest.model.input_shape
    data = open_data(sys.argv[2], split="train", input_shape=shape)
    first = Batches(seed=0, examples=len(data), batch=1).indices(0)
    data.fetch(first, np.empty((1, *shape), np.float32))
    weights = TensorFile(bundle.weights_path())
    importlib.import_module("edge_runtime.device._native")
    print(resident_bytes())
    del weights
    return 0


if __name__ == "__main__":
    sys.exit(main())
