"""One training program on other processors: built for them, run by an emulator, with the losses of this machine.

What is emulated needs Debian's qemu-user-static, and 64-bit ARM also g++-aarch64-linux-gnu.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("executorch", reason="its headers are needed to build the program")
pytest.importorskip("torch", reason="a bundle is exported with it")
from safetensors.numpy import load_file

from device_profiles.errors import ExecutionError
from edge_runtime.device import _native
from edge_runtime.device.prepare.hyperparameters import hyperparameters
from tests.support.native_build import build, configure, programs
from tests.support.native_program import TrainStep, write_state
from tests.support.native_step import NativeStep
from tools.cross.libraries import executorch_library
from tools.cross.machines import AARCH64

STEPS = 4
RATE = 0.05
BLOCKS = (1, 3)  # the second has a frozen prefix
# Sums are added in another order by wider vectors; four steps carry the difference on.
TOLERANCE = 1e-5

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the emulated machines are compared with x86_64"),
    # All kernels are compiled for 64-bit ARM: on a machine that does other things, past the usual limit.
    pytest.mark.timeout(1800),
]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training program, what it starts from, and the losses that Python's binding of the engine sees."""

    program: Path
    state: Path
    losses: list[np.float32]


@pytest.fixture(scope="module")
def cases(cnn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    weights = load_file(cnn_bundle / "weights" / "initial.safetensors")
    made = []
    for block in BLOCKS:
        name = f"grow-block{block}"
        step = NativeStep(cnn_bundle, name, weights)
        described = step.described
        (shape,) = (value.shape for value in described.inputs if value.role == "data")
        random = np.random.default_rng(block)
        data = random.standard_normal(shape, dtype=np.float32)
        labels = random.integers(0, 10, described.batch)
        assert described.optimizer is not None
        chosen = np.array(hyperparameters(described.optimizer, RATE, 0, 1, 0), np.float32)
        state = tmp_path_factory.mktemp("native") / name
        write_state(state, step, weights, {"images": data, "labels": labels, "hyperparameters": chosen})
        losses = [np.float32(step.step(data, labels, RATE)) for _ in range(STEPS)]
        assert losses[-1] < losses[0]
        made.append(Case(program=cnn_bundle / "programs" / f"{name}.pte", state=state, losses=losses))
    return made


def emulator(machine: str) -> str:
    names = (f"qemu-{machine}-static", f"qemu-{machine}")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"{names[0]} is not installed: apt-get install qemu-user-static")
    return found


@pytest.fixture(scope="module")
def native() -> TrainStep:
    (program,) = programs("train_step_executorch")
    return TrainStep(program=program)


@pytest.fixture(scope="module")
def aarch64() -> TrainStep:
    if shutil.which(AARCH64.compiler) is None:
        pytest.skip(f"{AARCH64.compiler} is not installed: apt-get install {AARCH64.package}")
    run = emulator("aarch64")
    try:
        library = executorch_library(AARCH64)
    except ExecutionError as error:
        pytest.skip(str(error))
    definitions = (f"CMAKE_TOOLCHAIN_FILE={AARCH64.toolchain}", f"PROFL_EXECUTORCH_LIBRARY={library}")
    configure(AARCH64.folder / "train_step", "PROFL_PYTHON_MODULES=OFF", *definitions)
    (program,) = build(AARCH64.folder / "train_step", ["train_step_executorch"])
    return TrainStep(program=program, emulator=[run, "-L", "/usr/aarch64-linux-gnu"])


def test_losses_without_python_are_those_with_it(native: TrainStep, cases: list[Case]) -> None:
    for case in cases:
        trained = native(case.program, case.state, steps=STEPS)
        assert trained.instruction_set == _native.instruction_set()
        assert trained.losses == case.losses


@pytest.mark.parametrize("kernels", ["baseline", "avx2"])
def test_lesser_kernels_agree_on_the_losses(native: TrainStep, cases: list[Case], kernels: str) -> None:
    for case in cases:
        trained = native(case.program, case.state, steps=STEPS, kernels=kernels)
        if trained.instruction_set != kernels:
            pytest.skip(f"this processor has no {kernels}")
        np.testing.assert_allclose(trained.losses, case.losses, rtol=TOLERANCE)


def test_a_processor_without_avx_trains(native: TrainStep, cases: list[Case]) -> None:
    old = TrainStep(program=native.program, emulator=[emulator("x86_64"), "-cpu", "Nehalem"])
    for case in cases:
        trained = old(case.program, case.state, steps=STEPS)
        assert trained.instruction_set == "baseline"
        np.testing.assert_allclose(trained.losses, case.losses, rtol=TOLERANCE)


def test_64_bit_arm_trains_with_neon(aarch64: TrainStep, cases: list[Case]) -> None:
    for case in cases:
        trained = aarch64(case.program, case.state, steps=STEPS)
        assert trained.instruction_set == "neon"
        np.testing.assert_allclose(trained.losses, case.losses, rtol=TOLERANCE)
        again = aarch64(case.program, case.state, steps=STEPS, threads=1)
        assert again.losses == trained.losses


def test_state_of_another_size_is_refused(native: TrainStep, cases: list[Case], tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(cases[0].state, state)
    (state / "inputs" / "0").write_bytes(b"12345678")
    with pytest.raises(AssertionError, match="inputs/0: has 8 bytes, the program takes 64"):
        native(cases[0].program, state, steps=1)
