"""A training program of a bundle run step by step in this process, as the device runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.contract import TRAINED_ROLES
from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from edge_runtime.device import _native
from edge_runtime.device.prepare.hyperparameters import hyperparameters

Array = NDArray[np.float32]


class NativeStep:
    """`weights` by the bundle's names; every `step` is one step of the optimizer. Dropout follows from `seed`.

    `proximal_mu` is for programs with a proximal term.
    """

    def __init__(
        self,
        bundle: Path,
        name: str,
        weights: dict[str, Array],
        *,
        threads: int = 2,
        seed: int = 0,
        proximal_mu: float = 0.0,
    ) -> None:
        self._proximal_mu = proximal_mu
        self.described = read_json(bundle / "manifest.json", Manifest).program(name)
        path = str(bundle / "programs" / f"{name}.pte")
        self.program = _native.Program(path, threads, self.described.prefix_instructions)
        for tensor in self.described.tensors:
            self.program.buffer(tensor.name)[...] = weights[tensor.name] if tensor.role in TRAINED_ROLES else 0
        (data,) = (value for value in self.described.inputs if value.role == "data")
        self._data_name = data.name
        outside = [value for value in self.described.inputs if value.role != "data"]
        staged = {value.name: np.zeros(value.shape, value.dtype) for value in outside if value.role != "frozen"}
        self._labels, self._hyperparameters = staged.get("labels"), staged.get("hyperparameters")
        self._random = staged.get("random")
        self._seed, self._steps = seed, 0
        for index, value in enumerate(outside):
            self.program.set_input(index, staged.get(value.name, weights.get(value.name)))

    def infer(self, data: NDArray[Any]) -> Array:
        """A copy of what an evaluation, or the frozen prefix alone, puts out."""
        self.program.buffer(self._data_name)[...] = data
        self.program.execute()
        return np.array(self.program.output(0))

    def step(self, data: NDArray[Any], labels: NDArray[Any] | None, rate: float) -> float:
        """One step over `data` [batch, ...]; returns its loss. A distillation takes no labels."""
        assert self.described.optimizer is not None and self._hyperparameters is not None
        size, count = self.described.micro_batch, self.described.batch // self.described.micro_batch
        loss = 0.0
        for position in range(count):
            part = slice(position * size, (position + 1) * size)
            # The program may overwrite its data.
            self.program.buffer(self._data_name)[...] = data[part]
            if self._labels is not None and labels is not None:
                self._labels[...] = labels[part]
            optimizer = self.described.optimizer
            self._hyperparameters[...] = hyperparameters(
                optimizer, rate, position, count, self._steps, self._proximal_mu
            )
            if self._random is not None:
                self._random[...] = (self._seed, self._steps * count + position)
            self.program.execute()
            loss += float(self.program.output(0).reshape(-1)[0])
        self._steps += 1
        return loss

    def tensors(self) -> dict[str, Array]:
        """Copies of everything trained."""
        return {
            tensor.name: self.program.buffer(tensor.name).copy()
            for tensor in self.described.tensors
            if tensor.role in TRAINED_ROLES
        }
