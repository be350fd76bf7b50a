"""One example in an execution: what no BatchNorm stands against trains as it does in a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from safetensors.torch import load_file  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.manifest import Optimizer  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.native_step import Array, NativeStep  # noqa: E402

BATCH, RATE, STEPS = 4, 0.05, 4
MODELS = {
    "vit": dict(model="tests.support.token_models:vit", input_shape=(3, 32, 32), classes=10),
    "text": dict(model="text_transformer", width=16, input_shape=(16,), classes=20),
    "GroupNorm": dict(model="tests.support.models:inception", input_shape=(3, 32, 32), classes=10),
}


def _losses(bundle: Path, name: str, options: dict[str, object]) -> tuple[list[float], dict[str, Array]]:
    generator = np.random.default_rng(3)
    weights = {key: tensor.numpy() for key, tensor in load_file(bundle / "weights/initial.safetensors").items()}
    native = NativeStep(bundle, name, weights)
    shape, classes = options["input_shape"], options["classes"]
    assert isinstance(shape, tuple) and isinstance(classes, int)
    losses = []
    for _ in range(STEPS):
        tokens = generator.integers(0, classes, (BATCH, *shape))
        images = generator.standard_normal((BATCH, *shape)).astype(np.float32)
        data = tokens if options["model"] == "text_transformer" else images
        losses.append(native.step(data, generator.integers(0, classes, BATCH), RATE))
    return losses, native.tensors()


@pytest.mark.parametrize(
    "optimizer", [Optimizer(name="sgd", momentum=0.9), Optimizer(name="adamw")], ids=["sgd", "adamw"]
)
@pytest.mark.parametrize("model", MODELS)
def test_micro_batches_of_one_example_are_the_step_of_the_batch(
    model: str, optimizer: Optimizer, tmp_path: Path
) -> None:
    options = MODELS[model]
    for folder, micro_batch in (("whole", None), ("single", 1)):
        export_bundle(  # type: ignore[misc]  # options of a table
            output=tmp_path / folder,
            batch=BATCH,
            micro_batch=micro_batch,
            optimizer=optimizer,
            blocks=2,
            verify=False,
            **options,
        )
    for block in (1, 2):
        name = f"grow-block{block}"
        expected, theirs = _losses(tmp_path / "whole", name, options)
        losses, ours = _losses(tmp_path / "single", name, options)
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
        if optimizer.name == "sgd":
            for key, tensor in theirs.items():
                np.testing.assert_allclose(ours[key], tensor, rtol=1e-3, atol=1e-4, err_msg=key)


def test_a_batch_norm_over_one_value_is_refused_by_the_option_that_asks_for_it(tmp_path: Path) -> None:
    model, output = "tests.support.models:mlp", tmp_path / "bundle"
    shared = dict(model=model, output=output, input_shape=(16,), classes=4)
    with pytest.raises(UsageError, match=r"^--micro-batch 1: a BatchNorm of the model sees one value a channel"):
        export_bundle(batch=4, micro_batch=1, **shared)  # type: ignore[arg-type]  # options of a table
    with pytest.raises(UsageError, match=r"^--batch 1: a BatchNorm .* give at least 2$"):
        export_bundle(batch=1, **shared)  # type: ignore[arg-type]  # options of a table
    assert not output.exists()


def test_a_batch_norm_over_an_image_trains_with_one_example(tmp_path: Path) -> None:
    manifest = export_bundle("cnn", tmp_path / "bundle", width=4, batch=1)
    assert manifest.program("grow-block1").batch == 1


@pytest.mark.parametrize("batch", [0, -3])
def test_a_batch_of_nothing_has_a_message_of_its_own(batch: int, tmp_path: Path) -> None:
    for micro_batch in (None, 1):
        with pytest.raises(UsageError, match=f"^--batch {batch}: a step needs at least one example$"):
            export_bundle("cnn", tmp_path / "bundle", batch=batch, micro_batch=micro_batch)
