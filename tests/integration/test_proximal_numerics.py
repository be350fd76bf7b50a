"""Training steps with FedProx's proximal term equal PyTorch eager's; it is refused where it is no part of the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402  # after the skip

from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.files import read_json  # noqa: E402
from device_profiles.manifest import Manifest, Optimizer  # noqa: E402
from edge_runtime.device.prepare.hyperparameters import hyperparameters  # noqa: E402
from edge_runtime.export.models.factory import create_model  # noqa: E402
from edge_runtime.export.plan.block_model import BlockModel  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.graph_reference import BlockReference, GraphRunner  # noqa: E402
from tests.support.native_step import NativeStep  # noqa: E402

BATCH, MU, RATE, SHAPE = 8, 0.3, 0.02, (3, 32, 32)
OPTIMIZERS = {
    "plain": Optimizer(name="sgd", weight_decay=0.01, proximal=True),
    "momentum": Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4, proximal=True),
    "nesterov": Optimizer(name="sgd", momentum=0.8, nesterov=True, proximal=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("block", [1, 3])
def test_ten_steps_equal_pytorch_eager(name: str, block: int, tmp_path: Path) -> None:
    _compare_ten_steps(OPTIMIZERS[name], block, BATCH, tmp_path)


@pytest.mark.parametrize("block", [1, 3])
def test_ten_steps_of_micro_batches_with_nesterov_equal_pytorch_eager(block: int, tmp_path: Path) -> None:
    _compare_ten_steps(OPTIMIZERS["nesterov"], block, 2, tmp_path)


def _compare_ten_steps(optimizer: Optimizer, block: int, micro_batch: int, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    bundle = tmp_path / "bundle"
    export_bundle(
        "cnn", bundle, width=8, batch=BATCH, block=block, optimizer=optimizer, micro_batch=micro_batch,
        verify=False,
    )  # fmt: skip
    weights = load_file(bundle / "weights" / "initial.safetensors")
    arrays = {key: value.numpy() for key, value in weights.items()}
    native = NativeStep(bundle, f"grow-block{block}", arrays, proximal_mu=MU)
    assert native.described.micro_batch == micro_batch
    module = create_model("cnn", width=8, classes=10, input_shape=SHAPE)
    source = BlockModel.of(module, name="cnn", batch=BATCH, input_shape=SHAPE, classes=10)
    reference = BlockReference(
        module,
        GraphRunner(module, torch.zeros(micro_batch, *SHAPE)),
        source.cut,
        read_json(bundle / "manifest.json", Manifest).partition,
        block,
        {key: value.clone() for key, value in weights.items()},
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        nesterov=optimizer.nesterov,
        proximal_mu=MU,
    )
    generator = torch.Generator().manual_seed(11)
    for step in range(10):
        images = torch.randn(BATCH, *SHAPE, generator=generator)
        labels = torch.randint(0, 10, (BATCH,), generator=generator)
        expected = reference.step(images, labels, RATE, micro_batch=micro_batch)
        loss = native.step(images.numpy(), labels.numpy(), RATE)
        assert abs(loss - expected) < (1e-5 if step == 0 else 1e-3) * abs(expected)
    theirs = reference.tensors()
    for key, value in native.tensors().items():
        assert np.linalg.norm(value - theirs[key].numpy()) < 1e-3 * np.linalg.norm(theirs[key].numpy()) + 1e-5, key


def test_the_weights_that_it_started_from_are_counted(tmp_path: Path) -> None:
    memory = {}
    for proximal in (False, True):
        optimizer = Optimizer(name="sgd", momentum=0.9, proximal=proximal)
        manifest = export_bundle(
            "cnn", tmp_path / str(proximal), batch=BATCH, block=1, optimizer=optimizer, verify=False
        )
        program = manifest.program("grow-block1")
        memory[proximal] = program.memory
        trained = {tensor.name: tensor for tensor in program.tensors if tensor.role == "parameter"}
        frozen = {value.name for value in program.inputs if value.role == "frozen"}
        assert frozen == (set(trained) if proximal else set())
    sizes = [4 * int(np.prod(tensor.shape)) for tensor in trained.values()]
    # Large ones take what the arena has free at their update, small ones keep memory of their own in whole cache lines.
    small = [size for size in sizes if size < 16 << 10]
    taken = memory[True].frozen_bytes - memory[False].frozen_bytes
    assert sum(small) <= taken <= sum(small) + 64 * len(small)
    assert 0 <= memory[True].arena_bytes - memory[False].arena_bytes <= max(sizes)
    assert memory[True].staging_bytes - memory[False].staging_bytes == 4


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (Optimizer(name="adamw", proximal=True), "--optimizer adamw"),
        (Optimizer(name="sgd", momentum=0.9, clip_norm=1.0, proximal=True), "--clip-norm"),
    ],
)
def test_it_is_refused_where_it_is_no_part_of_the_step(optimizer: Optimizer, named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--proximal cannot be combined with {named}"):
        export_bundle("cnn", tmp_path / "bundle", batch=BATCH, optimizer=optimizer)


def test_micro_batches_take_it_once() -> None:
    optimizer = OPTIMIZERS["momentum"]
    parts = [hyperparameters(optimizer, 0.1, position, 3, step=0, proximal_mu=0.5) for position in range(3)]
    assert [part[4] for part in parts] == [0.5, 0.0, 0.0]
    assert len(hyperparameters(Optimizer(name="sgd"), 0.1, 0, 1, step=0, proximal_mu=0.5)) == 4
