"""A training program of a bundle run step by step in this process, as the device runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_profiles.bundle import Manifest
from device_profiles.files import read_json
from edge_runtime.device import _native
from edge_runtime.device.optimizer import hyperparameters

Array = NDArray[np.float32]


class NativeStep:
    """`weights` by the bundle's names; every `step` is one step of the optimizer."""

    def __init__(self, bundle: Path, name: str, weights: dict[str, Array], *, threads: int = 2) -> None:
        self.described = read_json(bundle / "manifest.json", Manifest).program(name)
        path = str(bundle / "programs" / f"{name}.pte")
        self.program = _native.Program(path, threads, self.described.prefix_instructions)
        for tensor in self.described.tensors:
            self.program.buffer(tensor.name)[...] = 0 if tensor.role == "optimizer_state" else weights[tensor.name]
        (data,) = (value for value in self.described.inputs if value.role == "data")
        self._data_name = data.name
        staged = {}
        for value in self.described.inputs:
            if value.role == "label":
                staged[value.name] = np.zeros(value.shape, np.int64)
            elif value.role == "hyperparameter":
                staged[value.name] = np.zeros(value.shape, np.float32)
        self._labels, self._hyperparameters = staged["labels"], staged["hyperparameters"]
        outside = [value for value in self.described.inputs if value.role != "data"]
        for index, value in enumerate(outside):
            self.program.set_input(index, staged.get(value.name, weights.get(value.name)))

    def step(self, data: Array, labels: NDArray[np.int64], rate: float) -> float:
        """One step over `data` [batch, ...]; returns its loss."""
        assert self.described.optimizer is not None
        size, count = self.described.micro_batch, self.described.batch // self.described.micro_batch
        loss = 0.0
        for position in range(count):
            part = slice(position * size, (position + 1) * size)
            # The program may overwrite its data.
            self.program.buffer(self._data_name)[...] = data[part]
            self._labels[...] = labels[part]
            self._hyperparameters[...] = hyperparameters(self.described.optimizer, rate, position, count)
            self.program.execute()
            loss += float(self.program.output(0).reshape(-1)[0])
        return loss

    def tensors(self) -> dict[str, Array]:
        """Copies of everything trained."""
        return {
            tensor.name: self.program.buffer(tensor.name).copy()
            for tensor in self.described.tensors
            if tensor.role != "optimizer_state"
        }
