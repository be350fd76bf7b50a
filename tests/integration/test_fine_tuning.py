"""From a pretrained file to a fine-tuned model: on a device, and in a fleet; merged adapters compute the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the bundle is exported with torch")
pytest.importorskip("executorch", reason="the bundle is written with it")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from device_profiles.manifest import Manifest  # noqa: E402
from edge_runtime.export import models  # noqa: E402
from edge_runtime.export.models.preparation import Preparation  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from edge_runtime.export.targets.onnx import export_onnx  # noqa: E402
from tests.support.device_commands import profl_edge  # noqa: E402
from tests.support.merging import server  # noqa: E402

LENGTH, CLASSES = 8, 5
MEAN, STD = (0.2, 0.4, 0.6), (0.5, 0.25, 0.3)


def _text(classes: int = CLASSES) -> torch.nn.Module:
    return models.create("text_transformer", width=8, classes=classes, input_channels=LENGTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrained weights, and tokens to train on."""
    path = tmp_path_factory.mktemp("tuning")
    torch.manual_seed(4)
    torch.save({"state_dict": _text().state_dict()}, path / "pretrained.pt")
    generator = np.random.default_rng(5)
    tokens = generator.integers(0, CLASSES, (32, LENGTH))
    np.savez(path / "d.npz", inputs=tokens, labels=tokens[:, 0], test_inputs=tokens, test_labels=tokens[:, 0])
    return path


@pytest.fixture(scope="module")
def adapted(folder: Path) -> Manifest:
    """A bundle of adapters, whose step the exporter held against PyTorch's."""
    return export_bundle(
        "text_transformer", folder / "bundle", width=8, batch=8, input_shape=(LENGTH,), classes=CLASSES,
        preparation=Preparation(initial_weights=folder / "pretrained.pt", lora=2, lora_alpha=4.0), train_units="all",
    )  # fmt: skip


def test_adapters_are_trained_and_merged_into_the_plain_network(folder: Path, adapted: Manifest) -> None:
    data, update, model_file = f"npz:{folder / 'd.npz'}", folder / "u.safetensors", folder / "m.safetensors"
    profl_edge("train", folder / "bundle", "--data", data, "--epochs", 3, "--lr", 0.1, "-o", update)
    trained, pretrained = load_file(update), torch.load(folder / "pretrained.pt")["state_dict"]
    assert {name.rpartition(".")[2] for name in trained if not name.startswith("fc.")} == {
        "lora_a", "lora_b", "in_proj_lora_a", "in_proj_lora_b",
    }  # fmt: skip
    assert all(bool(value.any()) for name, value in trained.items() if name.endswith("lora_b"))
    said = server("finish", folder / "bundle", "--weights", update, "-o", model_file).stdout
    plain = _text()
    assert f"{len(plain.state_dict())} tensors of text_transformer" in said
    plain.load_state_dict(load_file(model_file), strict=True)
    for name, value in load_file(model_file).items():
        same = torch.equal(value, pretrained[name])
        assert same != (
            name.startswith("fc.") or name.endswith(("proj.weight", "proj_weight", "r1.weight", "r2.weight"))
        )
    report = profl_edge("eval", folder / "bundle", "--data", data, "--weights", update, "--json").report()
    arrays = np.load(folder / "d.npz")
    with torch.no_grad():
        loss = functional.cross_entropy(
            plain.eval()(torch.from_numpy(arrays["inputs"])), torch.tensor(arrays["labels"])
        )
    assert report["loss"] == pytest.approx(float(loss), rel=1e-4)


def test_an_update_of_adapters_is_a_fraction_of_the_model(folder: Path, adapted: Manifest) -> None:
    given = adapted.model.lora
    assert given is not None and (given.rank, given.scale) == (2, 2.0)
    step = next(program for program in adapted.programs if program.work.trains)
    roles = {tensor.name for tensor in step.tensors if tensor.role == "parameter"}
    assert roles == {name for name in (s.name for s in adapted.model.tensors) if "lora" in name} | {
        "fc.weight", "fc.bias",
    }  # fmt: skip


def test_the_last_units_of_a_decoder_are_adapted_from_a_file_without_its_head(folder: Path) -> None:
    """RMSNorm, rotary positions, grouped heads and SwiGLU; the exporter holds the step against PyTorch's."""
    decoder = models.create("text_decoder", width=8, classes=CLASSES, input_channels=LENGTH)
    state = {f"model.{name}": value for name, value in decoder.state_dict().items() if "fc" not in name}
    save_file(state, folder / "w.safetensors")
    said: list[str] = []
    manifest = export_bundle(
        "text_decoder", folder / "last", width=8, batch=8, input_shape=(LENGTH,), classes=CLASSES,
        preparation=Preparation(
            initial_weights=folder / "w.safetensors", lora=2, lora_targets=("q_proj", "v_proj", "gate_proj")
        ),
        train_units="7-8", progress=said.append,
    )  # fmt: skip
    assert said[0].endswith("under names that begin with 'model.'")
    assert said[1] == "not in the file, kept fresh: fc.weight"
    assert [program.name for program in manifest.programs] == ["eval-block1", "joint-units7-8"]
    trained = {tensor.name for tensor in manifest.programs[1].tensors if tensor.role == "parameter"}
    adapted = {f"layers.3.{name}" for name in ("attention.q_proj", "attention.v_proj", "gate_proj")}
    assert trained == {"fc.weight"} | {f"{name}.{end}" for name in adapted for end in ("lora_a", "lora_b")}
    report = profl_edge("train", folder / "last", "--data", f"npz:{folder / 'd.npz'}", "--steps", 2, "--json").report()
    assert report["program"] == "joint-units7-8"


def test_device_pytorch_and_onnx_agree_on_normalised_pixels(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the ONNX model")
    preparation = Preparation(mean=MEAN, std=STD)
    manifest = export_bundle("cnn", tmp_path / "b", width=4, batch=4, input_shape=(3, 8, 8), preparation=preparation)
    given = manifest.model.normalisation
    assert given is not None and (given.mean, given.std) == (MEAN, STD)
    pixels = np.random.default_rng(1).integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
    labels = np.arange(6)
    np.savez(tmp_path / "d.npz", images=pixels, labels=labels, test_images=pixels, test_labels=labels)
    data = f"npz:{tmp_path / 'd.npz'}"
    report = profl_edge("eval", tmp_path / "b", "--data", data, "--initial-prefix", "--json").report()
    said = profl_edge("train", tmp_path / "b", "--data", data).refusal(2)  # a bundle of several steps
    assert said.endswith("nothing says what to train; give --block or --work")
    initial, model_file = tmp_path / "b/weights/initial.safetensors", tmp_path / "m.safetensors"
    server("finish", tmp_path / "b", "--weights", initial, "--initial-blocks", "-o", model_file)
    with safe_open(model_file, "numpy") as opened:
        described = json.loads(opened.metadata()["model"])
    assert (described["pixels"], described["mean"]) == ("(pixel / 255 - mean) / std", list(MEAN))
    model = models.create("cnn", width=4, classes=10)
    model.load_state_dict(load_file(model_file), strict=True)
    wide = (1, 3, 1, 1)
    inputs = (torch.from_numpy(pixels) / 255 - torch.tensor(MEAN).reshape(wide)) / torch.tensor(STD).reshape(wide)
    with torch.no_grad():
        logits = model.eval()(inputs)
    assert report["loss"] == pytest.approx(float(functional.cross_entropy(logits, torch.from_numpy(labels))), rel=1e-4)
    export_onnx("cnn", tmp_path / "m.onnx", width=4, input_shape=(3, 8, 8), weights=model_file, preparation=preparation)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (found,) = session.run(None, {"images": pixels.astype(np.float32) * 2 / 255 - 1})
    np.testing.assert_allclose(found, logits.numpy(), rtol=1e-3, atol=1e-4)
