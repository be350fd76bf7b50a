"""One block's training step equals PyTorch eager's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from device_profiles.work import Growing, Head, Joint, first_trained_unit, grow, joint, label

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402  # after the skip

from device_profiles.contract import optimizer_state_name  # noqa: E402
from device_profiles.files import read_json  # noqa: E402
from device_profiles.manifest import Manifest, Program  # noqa: E402
from edge_runtime.device import _native  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.reference import BlockReference  # noqa: E402

CASES = [
    *[("cnn", 8, 8, b) for b in (1, 2, 3)],
    *[("resnet18", 16, 8, b) for b in (1, 2, 3, 4)],
    *[("vgg11_bn", 16, 8, b) for b in (1, 2, 3, 4)],
]

RUNS = [
    ("cnn", 8, 8, 1, 2),
    ("cnn", 8, 8, 2, 3),
    ("resnet18", 16, 8, 1, 4),
    ("resnet18", 16, 8, 2, 3),
    ("vgg11_bn", 16, 8, 3, 4),
]
SUFFIXES = [
    *[("cnn", 8, 8, 2, Joint(first_unit=0, last_unit=1)), ("cnn", 8, 8, 2, Head(last_unit=1))],
    ("cnn", 8, 8, 3, Head(last_unit=2)),
    *[("resnet18", 16, 8, 2, Joint(first_unit=first, last_unit=4)) for first in (1, 4)],
    ("resnet18", 16, 8, 2, Head(last_unit=4)),
    ("resnet18", 16, 8, 4, Joint(first_unit=6, last_unit=8)),
    ("vgg11_bn", 16, 8, 4, Head(last_unit=7)),
]
"""Runs of units that are no blocks, and output modules alone."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    result = {}
    for name, width, batch in sorted({case[:3] for case in CASES}):
        result[name] = root / name
        export_bundle(name, result[name], width=width, batch=batch, joint=True, verify=False)
        works = tuple(case[4] for case in SUFFIXES if case[0] == name)
        result[f"{name} suffixes"] = root / f"{name}_suffixes"
        export_bundle(name, result[f"{name} suffixes"], width=width, batch=batch, works=works, verify=False)
    return result


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Ten steps on the same batches."""

    ours: list[float]  # losses
    references: list[list[float]]
    tensors: list[tuple[str, list[float]]]  # after the first step, how far ours are from each reference's, in norm


@pytest.mark.parametrize(("name", "width", "batch", "block"), CASES)
def test_ten_steps_equal_pytorch_eager(name: str, width: int, batch: int, block: int, bundles: dict[str, Path]) -> None:
    _assert_equal(_ten_steps(bundles[name], name, width, batch, block, doubles=[False]))


@pytest.mark.parametrize(("name", "width", "batch", "first", "block"), RUNS)
def test_steps_of_a_run_of_blocks_equal_pytorch_eager(
    name: str, width: int, batch: int, first: int, block: int, bundles: dict[str, Path]
) -> None:
    # In a whole ResNet some activation comes so near a tie within ten steps that rounding decides over it.
    partition = read_json(bundles[name] / "manifest.json", Manifest).partition
    work = joint(partition, first, block)
    _assert_equal(_ten_steps(bundles[name], name, width, batch, block, doubles=[False], work=work), compared=5)


@pytest.mark.parametrize(("name", "width", "batch", "block", "work"), SUFFIXES, ids=lambda value: str(value))
def test_steps_of_suffixes_and_of_output_modules_equal_pytorch_eager(
    name: str, width: int, batch: int, block: int, work: Growing, bundles: dict[str, Path]
) -> None:
    folder = bundles[f"{name} suffixes"]
    _assert_equal(_ten_steps(folder, name, width, batch, block, doubles=[False], work=work), compared=5)


def _assert_equal(steps: Steps, *, compared: int = 10) -> None:
    difference = _relative(steps.ours, steps.references[0])
    assert difference[0] < 1e-5
    assert max(difference[:compared]) < 1e-3
    for tensor, (distance,) in steps.tensors:
        assert distance < 1e-4, tensor


@pytest.mark.study
@pytest.mark.parametrize("block", (1, 2, 3, 4))
@pytest.mark.parametrize("name", ("resnet18", "vgg11_bn"))
def test_ten_steps_of_full_size_equal_pytorch_eager(name: str, block: int, tmp_path: Path) -> None:
    """The same bounds at width 64, except where PyTorch's own float32 has left them.

    Rounding decides over a ReLU or a maximum near a tie, and ten steps make much of it. A block whose eager losses are
    themselves farther than the bound from those in float64 must be no farther from float64 than eager is.
    """
    export_bundle(name, tmp_path / name, width=64, batch=8, block=block, verify=False)
    steps = _ten_steps(tmp_path / name, name, 64, 8, block, doubles=[False, True])
    eager, exact = steps.references
    assert _relative(steps.ours, eager)[0] < 1e-5
    for tensor, (distance, _) in steps.tensors:
        assert distance < 1e-4, tensor
    eager_off = _relative(eager, exact)[9]
    if eager_off < 1e-3:
        assert _relative(steps.ours, eager)[9] < 1e-3
    else:
        assert _relative(steps.ours, exact)[9] <= eager_off


def _ten_steps(
    folder: Path, name: str, width: int, batch: int, block: int, *, doubles: list[bool], work: Growing | None = None
) -> Steps:
    manifest = read_json(folder / "manifest.json", Manifest)
    weights = _trained(load_file(folder / "weights" / "initial.safetensors"))
    partition = manifest.partition
    asked = grow(partition, block) if work is None else work
    start = first_trained_unit(asked)
    references = [
        BlockReference(name, manifest.partition, block, weights, width=width, double=double, first_unit=start)
        for double in doubles
    ]
    described = manifest.program(label(asked, partition))
    program = _native.Program(str(folder / "programs" / f"{described.name}.pte"), 2, described.prefix_instructions)
    for tensor in described.tensors:
        program.buffer(tensor.name)[...] = 0 if tensor.role == "optimizer_state" else weights[tensor.name].numpy()
    images = program.buffer("images")
    labels = np.empty(batch, np.int64)
    rate = 0.02
    staged = {"labels": labels, "hyperparameters": np.array([rate, 0.9, 5e-4, 0.0], np.float32)}
    for index, value in enumerate(value for value in described.inputs if value.role != "data"):
        program.set_input(index, staged[value.name] if value.role != "frozen" else weights[value.name].numpy())
    steps = Steps(ours=[], references=[[] for _ in references], tensors=[])
    for step in range(10):
        # The program may overwrite its images.
        batch_images = torch.randn(batch, 3, 32, 32)
        images[...] = batch_images.numpy()
        labels[...] = torch.randint(0, 10, (batch,)).numpy()
        for reference, losses in zip(references, steps.references, strict=True):
            losses.append(reference.step(batch_images, torch.from_numpy(labels), rate))
        program.execute()
        steps.ours.append(float(program.output(0).reshape(-1)[0]))
        if step == 0:
            steps.tensors.extend(_distances(described, program, references))
    return steps


def _trained(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights with running statistics and biases of a trained network, not the trivial initial ones."""
    torch.manual_seed(7)
    for key in weights:
        if key.endswith("running_mean"):
            weights[key] = 0.1 * torch.randn_like(weights[key])
        elif key.endswith("running_var"):
            weights[key] = 0.5 + torch.rand_like(weights[key])
            # A bias of zero would be compared relative to its first update alone, where a single activation that rounds
            # to the other side of the ReLU shows.
            bias = key.replace("running_var", "bias")
            weights[bias] = 0.1 * torch.randn_like(weights[bias])
    return weights


def _relative(losses: list[float], expected: list[float]) -> list[float]:
    return [abs(loss - other) / abs(other) for loss, other in zip(losses, expected, strict=True)]


def _distances(
    described: Program, program: _native.Program, references: list[BlockReference]
) -> list[tuple[str, list[float]]]:
    assert optimizer_state_name("momentum", described.tensors[0].name) in program.buffer_names()
    expected = [reference.tensors() for reference in references]
    distances = []
    for tensor in described.tensors:
        if tensor.role == "optimizer_state":
            continue
        ours, theirs = program.buffer(tensor.name), [e[tensor.name].numpy() for e in expected]
        distances.append((tensor.name, [float(np.linalg.norm(ours - t) / (np.linalg.norm(t) or 1.0)) for t in theirs]))
    return distances
