"""`train_step`, the native program that runs a training program without Python, built for this machine or another."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from device_profiles.contract import TRAINED_ROLES
from edge_runtime.device import _native
from tests.support.native_step import Array, NativeStep

ROOT = Path(__file__).parents[2]


def build_train_step(folder: Path, *definitions: str) -> Path:
    """Build it into `folder`, where a second build does only what changed; returns the program."""
    _configure(folder, *definitions)
    _run(["cmake", "--build", str(folder), "--target", "train_step"])
    return folder / "train_step"


def link_train_step(folder: Path) -> Path:
    """Build it with the kernels of the installed module: to compile them again takes minutes."""
    return link_program(folder, "train_step")


def link_program(folder: Path, *files: str) -> Path:
    """Build `files` of `csrc/testing`, of which the first one names the program, with the installed kernels."""
    name = files[0]
    _configure(folder, "PROFL_FUZZ=ON")
    compiled = [f"CMakeFiles/{name}.dir/edge_runtime/csrc/testing/{file}.cpp.o" for file in files]
    for target in compiled:
        _run(["cmake", "--build", str(folder), "--target", target])
    installed, program = Path(_native.__file__).parent, folder / name
    libraries = [str(installed / library) for library in ("libprofl_kernels.so", "libexecutorch.so")]
    objects = [str(folder / target) for target in compiled]
    _run(["c++", *objects, *libraries, f"-Wl,-rpath,{installed}", "-pthread", "-o", str(program)])
    return program


def _configure(folder: Path, *definitions: str) -> None:
    configure = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder)]
    chosen = ["PROFL_PYTHON_MODULES=OFF", "PROFL_TRAIN_STEP=ON", f"Python_EXECUTABLE={sys.executable}", *definitions]
    _run([*configure, *(f"-D{definition}" for definition in chosen)])


def _run(command: list[str]) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
