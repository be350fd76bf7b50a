"""PyTorch's side of the benchmark: `python -m tools.bench.pytorch_step FOLDER THREADS WARMUP STEPS`.

A process of its own that imports torch and nothing of this project's packages. FOLDER is what `workload.py` wrote for
one block: the block as a file of PyTorch calls, its tensors, a batch and the settings of the optimizer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tools.bench.child import timed_steps


class Block:
    """Trains the block as an eager PyTorch program does: prefix without gradients, loss, backward, optimizer."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "settings.json").read_text())
        source: dict[str, Any] = {}
        exec(compile((folder / "block.py").read_text(), str(folder / "block.py"), "exec"), source)
        self._prefix, self._trained = source.get("prefix"), source["trained"]
        tensors: dict[str, Tensor] = torch.load(folder / "tensors.pt")
        trained = [tensors[name].requires_grad_() for name in settings["trained"]]
        self.tensors = tensors
        self._modules = nested(tensors)
        self.images = torch.from_numpy(np.load(folder / "images.npy"))
        self.labels = torch.from_numpy(np.load(folder / "labels.npy"))
        self._optimizer = getattr(torch.optim, settings["optimizer"])(trained, **settings["optimizer_options"])

    def step(self) -> float:
        """One step; returns the loss before the update."""
        x = self.images
        if self._prefix is not None:
            with torch.no_grad():
                x = self._prefix(self._modules, x)
        loss = functional.cross_entropy(self._trained(self._modules, x), self.labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self._optimizer.step()
        return float(loss.detach())


def nested(tensors: dict[str, Tensor]) -> SimpleNamespace:
    """Tensors as attributes by their dotted names, as in a module."""
    root = SimpleNamespace()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if not hasattr(place, part):
                setattr(place, part, SimpleNamespace())
            place = getattr(place, part)
        setattr(place, last, tensor)
    return root


def main() -> None:
    """Measure, and print one JSON object."""
    folder, threads, warmup, steps = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    timed_steps(Block(folder).step, warmup=warmup, steps=steps)


if __name__ == "__main__":
    main()
