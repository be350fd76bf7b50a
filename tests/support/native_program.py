"""`train_step`, the native program that runs a training program without Python, built for this machine or another."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from device_profiles.contract import TRAINED_ROLES
from tests.support.native_step import Array, NativeStep


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the program printed."""

    instruction_set: str
    losses: list[np.float32]


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """The program for one machine, and what it takes to run it on this one."""

    program: Path
    emulator: list[str] = field(default_factory=list)

    def __call__(self, program: Path, state: Path, *, steps: int, threads: int = 2, kernels: str = "") -> Trained:
        """Train `program` of a bundle from `state`; `kernels` asks for those of a lesser processor."""
        command = [*self.emulator, str(self.program), str(program), str(state), str(steps), str(threads)]
        environment = {**os.environ, "PROFL_INSTRUCTION_SET": kernels}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.returncode, done.stderr)
        name, *losses = done.stdout.split()
        return Trained(instruction_set=name, losses=[np.float32(loss) for loss in losses])


def write_state(folder: Path, step: NativeStep, weights: dict[str, Array], batch: dict[str, np.ndarray]) -> None:
    """What `train_step` reads: frozen weights, labels and hyperparameters, trained weights, and the data."""
    (data,) = (value.name for value in step.described.inputs if value.role == "data")
    outside = [value.name for value in step.described.inputs if value.role != "data"]
    inputs = {str(index): batch.get(name, weights.get(name)) for index, name in enumerate(outside)}
    once = {t.name: weights[t.name] for t in step.described.tensors if t.role in TRAINED_ROLES}
    for kind, values in (("inputs", inputs), ("once", once), ("every", {data: batch[data]})):
        (folder / kind).mkdir(parents=True)
        for name, value in values.items():
            assert value is not None, name
            (folder / kind / name).write_bytes(value.tobytes())
