"""Variants of one training step: what they save, and that they compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.files import read_json  # noqa: E402
from device_profiles.manifest import Manifest, Optimizer, Program  # noqa: E402
from edge_runtime.device import _native  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.native_step import Array, NativeStep  # noqa: E402
from tests.support.reference import BlockReference  # noqa: E402

BATCH, WIDTH, RATE = 8, 8, 0.02


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "bundle"
    export_bundle("resnet18", folder, width=WIDTH, batch=BATCH, verify=False)
    return folder


def _variant(tmp_path: Path, **options: object) -> Path:
    folder = tmp_path / "bundle"
    export_bundle("resnet18", folder, width=WIDTH, batch=BATCH, verify=False, **options)  # type: ignore[arg-type]
    return folder


def _weights(bundle: Path) -> dict[str, Array]:
    generator = np.random.default_rng(3)
    weights = {name: tensor.numpy() for name, tensor in load_file(bundle / "weights/initial.safetensors").items()}
    for name, tensor in weights.items():  # running statistics of a trained prefix, not the trivial initial ones
        if name.endswith("running_mean"):
            tensor[...] = 0.1 * generator.standard_normal(tensor.shape)
        elif name.endswith("running_var"):
            tensor[...] = 0.5 + generator.random(tensor.shape)
    return weights


def _batches(count: int) -> list[tuple[Array, np.ndarray]]:
    generator = np.random.default_rng(5)
    return [
        (generator.standard_normal((BATCH, 3, 32, 32)).astype(np.float32), generator.integers(0, 10, BATCH))
        for _ in range(count)
    ]


def _run(bundle: Path, name: str, steps: int = 3) -> tuple[list[float], dict[str, Array]]:
    native = NativeStep(bundle, name, _weights(bundle))
    losses = [native.step(images, labels, RATE) for images, labels in _batches(steps)]
    return losses, native.tensors()


def _described(bundle: Path, name: str) -> Program:
    return read_json(bundle / "manifest.json", Manifest).program(name)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_recomputation_saves_bytes_and_changes_no_bit(block: int, plain: Path, tmp_path: Path) -> None:
    name = f"grow-block{block}"
    arena = _described(plain, name).memory.arena_bytes
    # The state stays whatever is computed again: ask for a part of what is left.
    memory = _described(plain, name).memory
    state = memory.parameters_bytes + memory.optimizer_state_bytes
    budget = state + int(0.95 * (arena - state))
    recomputed = _variant(tmp_path, block=block, recompute_bytes=budget)
    program = _described(recomputed, name)
    assert program.variant == "recompute"
    assert program.memory.arena_bytes <= budget < arena
    losses, tensors = _run(recomputed, name)
    expected_losses, expected = _run(plain, name)
    assert losses == expected_losses
    assert all(tensors[key].tobytes() == expected[key].tobytes() for key in expected)


def test_a_budget_that_cannot_be_reached_says_what_can(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--recompute 0\.1MB: the arena of block 1 needs \d+\.\d MB even when"):
        _variant(tmp_path, block=1, recompute_bytes=1 << 17)


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_micro_batches_accumulate_to_the_step_of_the_whole_batch(
    block: int, momentum: float, plain: Path, tmp_path: Path
) -> None:
    """Eager accumulates the gradients of the same micro-batches; BatchNorm sees one micro-batch at a time in both."""
    bundle = _variant(tmp_path, micro_batch=2, momentum=momentum)
    name = f"grow-block{block}"
    program = _described(bundle, name)
    assert (program.batch, program.micro_batch) == (BATCH, 2)
    assert program.memory.activations_bytes < 0.3 * _described(plain, name).memory.activations_bytes
    weights = {key: torch.from_numpy(value.copy()) for key, value in _weights(bundle).items()}
    manifest = read_json(bundle / "manifest.json", Manifest)
    reference = BlockReference("resnet18", manifest.partition, block, weights, width=WIDTH, momentum=momentum)
    native = NativeStep(bundle, name, _weights(bundle))
    for number, (images, labels) in enumerate(_batches(5)):
        expected = _accumulated_step(reference, torch.from_numpy(images), torch.from_numpy(labels), 2)
        loss = native.step(images, labels, RATE)
        assert abs(loss - expected) / abs(expected) < (1e-5 if number == 0 else 1e-3)
        if number == 0:
            theirs = reference.tensors()
            for key, ours in native.tensors().items():
                assert np.linalg.norm(ours - theirs[key].numpy()) < 1e-4 * (np.linalg.norm(theirs[key]) or 1.0), key


APART = {
    "nesterov": (
        Optimizer(name="sgd", momentum=0.8, nesterov=True, weight_decay=5e-4),
        lambda p: torch.optim.SGD(p, momentum=0.8, nesterov=True, weight_decay=5e-4),
    ),
    "adamw": (
        Optimizer(name="adamw", weight_decay=0.05, beta1=0.85, eps=1e-4),
        lambda p: torch.optim.AdamW(p, weight_decay=0.05, betas=(0.85, 0.999), eps=1e-4),
    ),
    "clipped": (
        Optimizer(name="sgd", momentum=0.9, clip_norm=0.3),
        lambda p: torch.optim.SGD(p, momentum=0.9),
    ),
    "clipped without momentum": (Optimizer(name="sgd", clip_norm=0.3), torch.optim.SGD),
    "adamw clipped": (
        Optimizer(name="adamw", weight_decay=0.01, eps=1e-4, clip_norm=0.5),
        lambda p: torch.optim.AdamW(p, weight_decay=0.01, eps=1e-4),
    ),
}
"""Optimizers whose momentum cannot take the sum of gradients."""


@pytest.mark.parametrize(("name", "block"), [(name, 1 + 2 * (i % 2)) for i, name in enumerate(APART)])
def test_optimizers_that_need_the_sum_of_all_gradients_take_micro_batches(
    name: str, block: int, plain: Path, tmp_path: Path
) -> None:
    optimizer, make = APART[name]
    bundle = _variant(tmp_path, micro_batch=2, optimizer=optimizer, block=block)
    described = _described(bundle, f"grow-block{block}")
    parameters = [4 * int(np.prod(t.shape)) for t in described.tensors if t.role == "parameter"]
    sums = [4 * int(np.prod(t.shape)) for t in described.tensors if t.role == "gradient_sum"]
    assert sorted(sums) == sorted(parameters)
    assert sum(sums) <= described.memory.gradients_bytes < sum(sums) + 2 * max(sums)
    weights = {key: torch.from_numpy(value.copy()) for key, value in _weights(bundle).items()}
    partition = read_json(bundle / "manifest.json", Manifest).partition
    reference = BlockReference("resnet18", partition, block, weights, width=WIDTH)
    reference.optimizer = make(reference.optimizer.param_groups[0]["params"])
    native = NativeStep(bundle, f"grow-block{block}", _weights(bundle))
    rate = RATE if optimizer.name == "sgd" else 0.1 * RATE
    for number, (images, labels) in enumerate(_batches(10)):
        expected = _accumulated_step(
            reference,
            torch.from_numpy(images),
            torch.from_numpy(labels),
            2,
            rate=rate,
            clip_norm=optimizer.clip_norm,
        )
        loss = native.step(images, labels, rate)
        assert abs(loss - expected) / abs(expected) < (1e-5 if number == 0 else 1e-3)
        if number == 0:
            theirs = reference.tensors()
            for key, ours in native.tensors().items():
                assert np.linalg.norm(ours - theirs[key].numpy()) < 1e-4 * (np.linalg.norm(theirs[key]) or 1.0), key
    assert not any(native.program.buffer(t.name).any() for t in described.tensors if t.role == "gradient_sum")


def _accumulated_step(
    reference: BlockReference,
    images: torch.Tensor,
    labels: torch.Tensor,
    size: int,
    *,
    rate: float = RATE,
    clip_norm: float = 0.0,
) -> float:
    reference.prefix.eval()
    reference.active.train()
    for group in reference.optimizer.param_groups:
        group["lr"] = rate
    reference.optimizer.zero_grad()
    total = 0.0
    for first in range(0, len(images), size):
        with torch.no_grad():
            x = reference.prefix(images[first : first + size])
        x = reference.active(x)
        for weight, stride in zip(reference.stand_ins.values(), reference.strides, strict=True):
            x = functional.conv2d(x, weight, stride=stride, padding=1)
        logits = reference.head(x.mean((2, 3)))
        loss = functional.cross_entropy(logits, labels[first : first + size], reduction="sum") / len(images)
        loss.backward()
        total += float(loss.detach())
    if clip_norm > 0:
        torch.nn.utils.clip_grad_norm_(reference.optimizer.param_groups[0]["params"], clip_norm)
    reference.optimizer.step()
    return total


def test_a_micro_batch_must_divide_the_batch(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--micro-batch 3: must divide --batch 8"):
        _variant(tmp_path, micro_batch=3)


def test_half_momentum_takes_half_the_bytes_and_follows_the_whole_one(plain: Path, tmp_path: Path) -> None:
    halved = _variant(tmp_path, block=4, momentum_dtype="bfloat16")
    whole_memory, half_memory = (_described(b, "grow-block4").memory for b in (plain, halved))
    assert half_memory.optimizer_state_bytes * 2 == whole_memory.optimizer_state_bytes
    losses, tensors = _run(halved, "grow-block4", steps=8)
    expected_losses, expected = _run(plain, "grow-block4", steps=8)
    assert losses[0] == expected_losses[0]
    np.testing.assert_allclose(losses, expected_losses, rtol=0.02)
    moved = [np.linalg.norm(expected[k] - _weights(plain)[k]) for k in expected]
    apart = [np.linalg.norm(expected[k] - tensors[k]) for k in expected]
    assert 0 < sum(apart) < 0.02 * sum(moved)


@pytest.mark.parametrize("block", [2, 4])
def test_cached_features_train_the_same_bits_as_the_prefix_in_the_step(block: int, plain: Path) -> None:
    weights = _weights(plain)
    described = _described(plain, f"features-block{block}")
    program = _native.Program(str(plain / "programs" / f"{described.name}.pte"), 2, described.prefix_instructions)
    for index, value in enumerate(value for value in described.inputs if value.role != "data"):
        program.set_input(index, weights[value.name])
    cached = NativeStep(plain, f"grow-block{block}-cached-prefix", weights)
    assert all(value.role != "frozen" for value in cached.described.inputs)
    uncached = NativeStep(plain, f"grow-block{block}", weights)
    for images, labels in _batches(3):
        program.buffer("images")[...] = images
        program.execute()
        assert cached.step(program.output(0), labels, RATE) == uncached.step(images, labels, RATE)
    ours, theirs = cached.tensors(), uncached.tensors()
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)


def test_large_frozen_weights_lie_where_the_block_will_be_and_cost_nothing(plain: Path, tmp_path: Path) -> None:
    """Wide enough that weights exceed what is worth reading anew."""
    folder = tmp_path / "wide"
    export_bundle("resnet18", folder, width=64, batch=32, block=4, verify=False)
    program = _described(folder, "grow-block4")
    sizes = [v.size_bytes for v in program.inputs if v.role == "frozen"]
    assert 0 < program.memory.frozen_bytes < 0.01 * sum(sizes)  # vectors of BatchNorm stay
    large = [v for v in program.inputs if v.read_before]
    assert large and all(v.size_bytes >= 16 << 10 for v in large)
    assert max(sizes) == max(v.size_bytes for v in large)
    assert all(0 <= i < program.prefix_instructions for v in large for i in v.read_before)
    cached = _described(folder, "grow-block4-cached-prefix")  # has no prefix, and the same block
    assert program.memory.arena_bytes <= 1.01 * cached.memory.arena_bytes
