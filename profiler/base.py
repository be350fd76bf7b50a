"""`python -m profiler.base BUNDLE`: resident bytes of a process that has loaded all but a program."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> int:
    """Print the bytes. Modules in the order of `profl-edge bench`, so that the number is its `base_bytes`."""
    from edge_runtime.device.cli import main as _command_line  # noqa: F401  # its click and msgspec count as well
    from edge_runtime.device.process import make_light, resident_bytes

    make_light()
    importlib.import_module("edge_runtime.device.bench")
    from edge_runtime.device.bundle import open_bundle
    from edge_runtime.device.tensors import TensorFile

    bundle = open_bundle(Path(sys.argv[1]))
    weights = TensorFile(bundle.weights_path())
    importlib.import_module("edge_runtime.device._native")
    print(resident_bytes())
    del weights
    return 0


if __name__ == "__main__":
    sys.exit(main())
