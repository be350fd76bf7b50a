"""Training steps of token models equal PyTorch eager's: every block, with and without dropout, every optimizer."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402  # after the skip
from torch.nn import functional  # noqa: E402

from device_profiles.files import read_json  # noqa: E402
from device_profiles.manifest import Loss, Manifest, Optimizer  # noqa: E402
from edge_runtime.export import models  # noqa: E402
from edge_runtime.export.cut.units import CutModel  # noqa: E402
from edge_runtime.export.plan.block_model import BlockModel  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support import token_models, transformers_models  # noqa: E402
from tests.support.native_step import NativeStep  # noqa: E402
from tests.support.token_reference import TokenReference  # noqa: E402

SGD = Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4)
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"input_shape": (3, 32, 32), "classes": 10, "partition": "0-2,3-4,5-6"},
    "vit_with_dropout": {"input_shape": (3, 32, 32), "classes": 10, "partition": "0,1-2,3-4"},
    "text": {"input_shape": (12,), "input_dtype": "int64", "classes": 4, "partition": "0-2,3-4"},
    "text_norm_first": {"input_shape": (12,), "input_dtype": "int64", "classes": 4, "partition": "0,1-2,3,4"},
    "causal_reader": {"input_shape": (9,), "input_dtype": "int64", "classes": 3},
    "written_out": {"input_shape": (6, 10), "classes": 4},
    "mlp": {"input_shape": (20,), "classes": 5},
    "transformers:vit": {"input_shape": (3, 32, 32), "classes": 10, "partition": "0-2,3-4"},
    "transformers:bert": {"input_shape": (12,), "input_dtype": "int64", "classes": 4, "partition": "0-2,3-4"},
    "text_transformer": {"input_shape": (9,), "input_dtype": "int64", "classes": 30},
}
BLOCKS = {
    "vit": 3,
    "vit_with_dropout": 3,
    "text": 2,
    "text_norm_first": 4,
    "causal_reader": 3,
    "written_out": 3,
    "mlp": 3,
    "transformers:vit": 2,
    "transformers:bert": 2,
    "text_transformer": 4,
}
BATCH, VOCABULARY, SEED = 6, 30, 11


@functools.cache
def _bundle(root: Path, name: str, optimizer: Optimizer, loss: Loss, block: int | None) -> tuple[Path, Manifest]:
    folder = root / f"{name.replace(':', '-')}-{abs(hash((optimizer, loss, block)))}"
    model = f"tests.support.token_models:{name}"
    if name.startswith("transformers:"):
        model = f"tests.support.transformers_models:{name.partition(':')[2]}"
    elif name in models.BUILT_IN:
        model = name
    export_bundle(model, folder, batch=BATCH, optimizer=optimizer, loss=loss, block=block, verify=False, **MODELS[name])
    return folder, read_json(folder / "manifest.json", Manifest)


def _module(name: str) -> torch.nn.Module:
    if name in models.BUILT_IN:
        settings = MODELS[name]
        return models.create(name, classes=settings["classes"], input_channels=settings["input_shape"][0])
    source, _, made = name.rpartition(":")
    if source:
        pytest.importorskip("transformers", reason="transformers builds this model: pip install transformers")
    module: torch.nn.Module = getattr(transformers_models if source else token_models, made)()
    return module


@functools.cache
def _captured(name: str) -> tuple[CutModel, torch.export.ExportedProgram]:
    """What is cut where, and PyTorch's own graph of it."""
    settings = {key: value for key, value in MODELS[name].items() if key != "partition"}
    module = _module(name)
    cut = BlockModel.of(module, name=name, batch=BATCH, **settings).cut
    dtype = torch.int64 if settings.get("input_dtype") == "int64" else torch.float32
    example = torch.zeros(BATCH, *settings["input_shape"], dtype=dtype)
    return cut, torch.export.export(module.train(), (example,))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("token-bundles")


class _Case:
    """A block of a bundle with its weights in the runtime and in PyTorch."""

    def __init__(self, root: Path, name: str, block: int, chosen: Optimizer, minimised: Loss, **reference: Any) -> None:
        torch.set_num_threads(1)
        module = _module(name)
        only = None if chosen is SGD and minimised == Loss() else block
        folder, self.manifest = _bundle(root, name, chosen, minimised, only)
        weights = load_file(folder / "weights" / "initial.safetensors")
        torch.manual_seed(3)
        for key, value in weights.items():  # norms of a trained model, not their trivial start
            if value.dim() == 1:
                weights[key] = value + 0.1 * torch.randn_like(value)
        cut, program = _captured(name)
        self.dtype, self.shape = MODELS[name].get("input_dtype"), (BATCH, *MODELS[name]["input_shape"])
        self.reference = TokenReference(module, program, cut, self.manifest.partition, block, weights, **reference)
        arrays = {key: value.numpy() for key, value in weights.items()}
        self.native = NativeStep(folder, f"grow-block{block}", arrays, threads=1, seed=SEED)
        (self.labels,) = (value for value in self.native.described.inputs if value.role == "label")

    def step(self, step: int, rate: float) -> tuple[float, float]:
        """Losses of the runtime and of PyTorch."""
        tokens = self.dtype == "int64"
        inputs = torch.randint(0, VOCABULARY, self.shape) if tokens else torch.randn(self.shape)
        labels = torch.randint(0, self.manifest.model.classes, self.labels.shape)
        if self.labels.dtype == "float32":
            labels = labels.to(torch.float32)
        expected = self.reference.step(inputs, labels, rate, (SEED, step))
        return self.native.step(inputs.numpy(), labels.numpy(), rate), expected

    def compare_tensors(self, tolerance: float = 1e-4) -> None:
        expected = self.reference.tensors()
        for name, ours in self.native.tensors().items():
            theirs = expected[name].numpy()
            assert np.linalg.norm(ours - theirs) / (np.linalg.norm(theirs) or 1.0) < tolerance, name


def _sgd(parameters: list[Any]) -> Any:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)


def _ten_steps(case: _Case, rate: float) -> None:
    difference = []
    for step in range(10):
        ours, expected = case.step(step, rate)
        difference.append(abs(ours - expected) / abs(expected))
        if step == 0:
            case.compare_tensors()
    assert difference[0] < 1e-5
    assert difference[9] < 1e-3


@pytest.mark.parametrize(("name", "block"), [(n, b) for n, count in BLOCKS.items() for b in range(1, count + 1)])
def test_ten_steps_equal_pytorch_eager(name: str, block: int, root: Path) -> None:
    _ten_steps(_Case(root, name, block, SGD, Loss(), optimizer=_sgd), 0.02)


# The gradient of an attention's key bias is zero but for rounding; a small eps would make steps of that noise.
OPTIMIZERS = {
    "sgd without momentum": (
        Optimizer(name="sgd", weight_decay=0.01),
        lambda p: torch.optim.SGD(p, weight_decay=0.01),
        0.0,
    ),
    "nesterov": (
        Optimizer(name="sgd", momentum=0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, momentum=0.8, nesterov=True),
        0.0,
    ),
    "adamw": (
        Optimizer(name="adamw", weight_decay=0.05, beta1=0.85, beta2=0.98, eps=1e-4),
        lambda p: torch.optim.AdamW(p, weight_decay=0.05, betas=(0.85, 0.98), eps=1e-4),
        0.0,
    ),
    "clipped": (Optimizer(name="sgd", momentum=0.9, clip_norm=0.3), lambda p: torch.optim.SGD(p, momentum=0.9), 0.3),
    "adamw clipped": (
        Optimizer(name="adamw", weight_decay=0.01, eps=1e-4, clip_norm=0.5),
        lambda p: torch.optim.AdamW(p, weight_decay=0.01, eps=1e-4),
        0.5,
    ),
}


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize(("name", "block"), [("text", 1), ("mlp", 2)])
def test_every_optimizer_equals_pytorch(optimizer: str, name: str, block: int, root: Path) -> None:
    ours, theirs, clip = OPTIMIZERS[optimizer]
    _ten_steps(_Case(root, name, block, ours, Loss(), optimizer=theirs, clip_norm=clip), 0.01)


def test_label_smoothing_equals_pytorch(root: Path) -> None:
    smoothed = functools.partial(functional.cross_entropy, label_smoothing=0.1)
    loss = Loss(label_smoothing=0.1)
    _ten_steps(_Case(root, "mlp", 3, SGD, loss, optimizer=_sgd, loss=smoothed), 0.02)


def test_mean_squared_error_equals_pytorch(root: Path) -> None:
    loss = Loss(name="mse")
    _ten_steps(_Case(root, "mlp", 1, SGD, loss, optimizer=_sgd, loss=functional.mse_loss), 0.02)
