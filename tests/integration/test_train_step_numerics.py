"""One block's training step equals PyTorch eager's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402  # after the skip

from device_profiles.contract import optimizer_state_name  # noqa: E402
from edge_runtime.device import _native  # noqa: E402
from edge_runtime.export.bundle import export_bundle  # noqa: E402
from tests.support.reference import BlockReference  # noqa: E402

CASES = [
    *[("cnn", 8, 8, b) for b in (1, 2, 3)],
    *[("resnet18", 16, 8, b) for b in (1, 2, 3, 4)],
    *[("vgg11_bn", 16, 8, b) for b in (1, 2, 3, 4)],
]
FULL_SIZE = [(name, 64, 8, b) for name in ("resnet18", "vgg11_bn") for b in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    result = {}
    for name, width, batch in sorted({case[:3] for case in CASES}):
        result[name] = root / name
        export_bundle(name, result[name], width=width, batch=batch)
    return result


@pytest.mark.study
@pytest.mark.parametrize(("name", "width", "batch", "block"), FULL_SIZE)
def test_ten_steps_of_full_size_equal_pytorch_eager(
    name: str, width: int, batch: int, block: int, tmp_path: Path
) -> None:
    """A value so near zero that rounding decides its ReLU shows in a parameter's gradient: none may, or hardly any."""
    export_bundle(name, tmp_path / name, width=width, batch=batch, block=block)
    test_ten_steps_equal_pytorch_eager(name, width, batch, block, {name: tmp_path / name})


@pytest.mark.parametrize(("name", "width", "batch", "block"), CASES)
def test_ten_steps_equal_pytorch_eager(name: str, width: int, batch: int, block: int, bundles: dict[str, Path]) -> None:
    from device_profiles.bundle import Manifest
    from device_profiles.files import read_json

    folder = bundles[name]
    manifest = read_json(folder / "manifest.json", Manifest)
    weights = load_file(folder / "weights" / "initial.safetensors")
    torch.manual_seed(7)
    for key in weights:  # running statistics of a trained prefix, not the trivial initial ones
        if key.endswith("running_mean"):
            weights[key] = 0.1 * torch.randn_like(weights[key])
        elif key.endswith("running_var"):
            weights[key] = 0.5 + torch.rand_like(weights[key])
            # A bias of zero would be compared relative to its first update alone, where a single activation that rounds
            # to the other side of the ReLU shows.
            bias = key.replace("running_var", "bias")
            weights[bias] = 0.1 * torch.randn_like(weights[bias])
    reference = BlockReference(name, manifest.partition, block, weights, width=width)
    described = manifest.program(f"grow-block{block}")
    program = _native.Program(str(folder / "programs" / f"{described.name}.pte"), 2, described.prefix_instructions)
    for tensor in described.tensors:
        program.buffer(tensor.name)[...] = 0 if tensor.role == "optimizer_state" else weights[tensor.name].numpy()
    images = program.buffer("images")
    labels = np.empty(batch, np.int64)
    rate = 0.02
    staged = {"labels": labels, "hyperparameters": np.array([rate, 0.9, 5e-4, 0.0], np.float32)}
    for index, value in enumerate(value for value in described.inputs if value.role != "data"):
        program.set_input(index, staged[value.name] if value.role != "frozen" else weights[value.name].numpy())
    difference = []
    for step in range(10):
        # The program may overwrite its images.
        batch_images = torch.randn(batch, 3, 32, 32)
        images[...] = batch_images.numpy()
        labels[...] = torch.randint(0, 10, (batch,)).numpy()
        expected = reference.step(batch_images, torch.from_numpy(labels), rate)
        program.execute()
        loss = float(program.output(0).reshape(-1)[0])
        difference.append(abs(loss - expected) / abs(expected))
        if step == 0:
            _compare_tensors(described, program, reference)
    assert difference[0] < 1e-5
    assert difference[9] < 1e-3


def _compare_tensors(described, program, reference) -> None:
    expected = reference.tensors()
    for tensor in described.tensors:
        if tensor.role == "optimizer_state":
            continue
        ours, theirs = program.buffer(tensor.name), expected[tensor.name].numpy()
        scale = np.linalg.norm(theirs) or 1.0
        assert np.linalg.norm(ours - theirs) / scale < 1e-4, tensor.name
    assert optimizer_state_name("momentum", described.tensors[0].name) in program.buffer_names()
