"""A distillation's steps equal PyTorch eager's: every block of convolutional networks and of token models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402  # after the skip
from torch import nn  # noqa: E402

from device_profiles.files import read_json  # noqa: E402
from device_profiles.manifest import Manifest, Optimizer  # noqa: E402
from edge_runtime.export.models.factory import create_model  # noqa: E402
from edge_runtime.export.plan.block_model import BlockModel  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.distill_reference import DistillReference, Runner  # noqa: E402
from tests.support.graph_reference import GraphRunner  # noqa: E402
from tests.support.native_step import NativeStep  # noqa: E402
from tests.support.token_reference import DroppingRunner  # noqa: E402
from tests.support.trained_weights import draw_running_statistics  # noqa: E402

BATCH, RATE, VOCABULARY = 8, 2e-3, 30


@dataclass(frozen=True, kw_only=True)
class Case:
    """A built-in model where `width` is given, else one of tests/support."""

    model: str
    last: int
    width: int | None = None
    input_shape: tuple[int, ...] = (3, 32, 32)
    classes: int = 10
    partition: str | None = None
    tokens: bool = False
    head: str | None = None


CASES = {
    "cnn": Case(model="cnn", width=8, last=3),
    "resnet18": Case(model="resnet18", width=16, last=4),
    "vgg11_bn": Case(model="vgg11_bn", width=16, last=4),
    "vit": Case(model="tests.support.token_models:vit", last=3, partition="0-2,3-4,5-6"),
    "text": Case(
        model="tests.support.token_models:text", last=2, input_shape=(12,), classes=4, partition="0-2,3-4", tokens=True
    ),
    # Behind a frozen head with BatchNorm and an activation gradients pass on.
    "norm_head": Case(model="tests.support.models:norm_head", last=3, input_shape=(3, 16, 16), head="head"),
}
BLOCKS = [(name, block) for name, case in CASES.items() for block in range(2, case.last + 1)]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A bundle, what it was made of, and weights of a network that was trained a while."""

    folder: Path
    manifest: Manifest
    module: nn.Module
    source: BlockModel
    weights: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)

    @cache
    def export(name: str, optimizer: Optimizer | None = None, micro_batch: int | None = None) -> Exported:
        case = CASES[name]
        folder = tmp_path_factory.mktemp(name) / "bundle"
        options: dict[str, Any] = {"input_shape": case.input_shape, "classes": case.classes}
        told: dict[str, Any] = {**options, "head": case.head, "input_dtype": "int64" if case.tokens else "float32"}
        export_bundle(
            case.model,
            folder,
            width=case.width,
            partition=case.partition,
            batch=BATCH,
            micro_batch=micro_batch,
            optimizer=optimizer,
            verify=False,
            **told,
        )
        module = create_model(case.model, width=case.width, **options)
        return Exported(
            folder=folder,
            manifest=read_json(folder / "manifest.json", Manifest),
            module=module,
            source=BlockModel.of(module, name=name, batch=BATCH, **told),
            weights=_trained(load_file(folder / "weights" / "initial.safetensors")),
        )

    return export


def _trained(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    draw_running_statistics(weights, generator)
    for key, value in weights.items():
        if value.dim() == 1 and not key.endswith(("running_mean", "running_var")):
            weights[key] = value + 0.1 * torch.randn(value.shape, generator=generator)
    return weights


def _runner(case: Case) -> Any:
    example = torch.zeros(BATCH, *case.input_shape, dtype=torch.int64 if case.tokens else torch.float32)

    def make(module: nn.Module) -> Runner:
        if "token_models" not in case.model:
            return GraphRunner(module, example)
        return DroppingRunner(module, torch.export.export(module.train(), (example,)))

    return make


def _batches(case: Case, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    shape = (BATCH, *case.input_shape)
    if case.tokens:
        return [torch.randint(0, VOCABULARY, shape, generator=generator) for _ in range(count)]
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def _compare(made: Exported, name: str, block: int, *, proximal_mu: float = 0.0, **optimizer: float) -> None:
    case = CASES[name]
    arrays = {key: value.numpy() for key, value in made.weights.items()}
    native = NativeStep(made.folder, f"distill-block{block}", arrays, proximal_mu=proximal_mu)
    assert [value.name for value in native.described.inputs if value.role == "label"] == []
    reference = DistillReference(
        made.module,
        _runner(case),
        made.source.cut,
        made.manifest.partition,
        block,
        made.weights,
        proximal_mu=proximal_mu,
        **optimizer,
    )
    differences = []
    for step, inputs in enumerate(_batches(case, 10)):
        expected = reference.step(inputs, RATE)
        loss = native.step(inputs.numpy(), None, RATE)
        differences.append(abs(loss - expected) / abs(expected))
        if step == 0:
            _compare_tensors(native, reference, made.weights)
    assert differences[0] < 1e-5
    assert differences[9] < 1e-3


def _compare_tensors(native: NativeStep, reference: DistillReference, before: dict[str, torch.Tensor]) -> None:
    expected = reference.tensors()
    ours = native.tensors()
    trained = {name for name, value in expected.items() if not torch.equal(value, before[name])}
    assert set(ours) >= trained and reference.name in ours
    for name, value in ours.items():
        theirs = expected[name].numpy()
        assert np.linalg.norm(value - theirs) < 1e-4 * (np.linalg.norm(theirs) or 1.0), name
        change = np.linalg.norm(theirs - before[name].numpy())
        assert np.linalg.norm(value - theirs) < 1e-3 * change + 1e-6 * np.sqrt(value.size), name


@pytest.mark.parametrize(("name", "block"), BLOCKS)
def test_ten_steps_equal_pytorch_eager(name: str, block: int, exported: Any) -> None:
    _compare(exported(name), name, block)


def test_only_the_stand_in_is_trained_and_in_the_last_block_the_head(exported: Any) -> None:
    manifest = exported("resnet18").manifest
    for block in (2, 3, 4):
        program = manifest.program(f"distill-block{block}")
        trained = {tensor.name for tensor in program.tensors if tensor.role == "parameter"}
        head = {"fc.weight", "fc.bias"} if block == 4 else set()
        assert trained == {f"output_module.block{block}.weight"} | head
        frozen = {value.name for value in program.inputs if value.role == "frozen"}
        assert {"conv1.weight", f"layer{block}.0.conv1.weight", "fc.weight"} <= frozen


@pytest.mark.parametrize("block", [2, 3, 4])
def test_a_distillation_needs_fewer_bytes_than_training_the_block(block: int, exported: Any) -> None:
    manifest = exported("resnet18").manifest
    for variant in ("", "-cached-prefix"):
        distill, grow = (manifest.program(f"{what}-block{block}{variant}").memory for what in ("distill", "grow"))
        assert distill.total_bytes(2) < grow.total_bytes(2)


@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_a_cached_prefix_gives_the_same_bits(name: str, exported: Any) -> None:
    made, case, block = exported(name), CASES[name], CASES[name].last
    arrays = {key: value.numpy() for key, value in made.weights.items()}
    plain, cached = (NativeStep(made.folder, f"distill-block{block}{v}", arrays) for v in ("", "-cached-prefix"))
    features = NativeStep(made.folder, f"features-block{block}", arrays)
    for inputs in _batches(case, 3):
        expected = plain.step(inputs.numpy(), None, RATE)
        assert cached.step(features.infer(inputs.numpy()), None, RATE) == expected
    for key, value in plain.tensors().items():
        np.testing.assert_array_equal(cached.tensors()[key], value)


def test_micro_batches_add_up_to_the_whole_batch(exported: Any) -> None:
    _compare(exported("cnn", None, BATCH // 2), "cnn", 3)


PROXIMAL = {
    "momentum": Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4, proximal=True),
    "plain": Optimizer(name="sgd", weight_decay=0.01, proximal=True),
}


@pytest.mark.parametrize("optimizer", PROXIMAL)
@pytest.mark.parametrize(("name", "block"), [("cnn", 2), ("vit", 3)])
def test_the_proximal_term_equals_eagers(optimizer: str, name: str, block: int, exported: Any) -> None:
    chosen = PROXIMAL[optimizer]
    made = exported(name, chosen)
    _compare(made, name, block, proximal_mu=0.5, momentum=chosen.momentum, weight_decay=chosen.weight_decay)
