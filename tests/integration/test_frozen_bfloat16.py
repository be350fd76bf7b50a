"""`export --frozen-dtype bfloat16`: weights that no step trains take half the bytes in a file and are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the bundle is exported with torch")
pytest.importorskip("executorch", reason="the bundle is written with it")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.manifest import Manifest  # noqa: E402
from edge_runtime.export import models  # noqa: E402
from edge_runtime.export.models.preparation import Preparation  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.device_commands import profl_edge  # noqa: E402
from tests.support.merging import server  # noqa: E402

LENGTH, CLASSES, WIDTH, BATCH, RATE = 8, 5, 96, 8, 0.05
FIRST = 5
"""Unit that the training begins with."""


def _model() -> torch.nn.Module:
    return models.create("text_decoder", width=WIDTH, classes=CLASSES, input_channels=LENGTH)


def _export(folder: Path, name: str, dtype: str, lora: int = 0) -> Manifest:
    return export_bundle(
        "text_decoder", folder / name, width=WIDTH, batch=BATCH, input_shape=(LENGTH,), classes=CLASSES, momentum=0.0,
        weight_decay=0.0, frozen_dtype=dtype,  # type: ignore[arg-type]  # one of the two
        preparation=Preparation(initial_weights=folder / "w.safetensors", lora=lora),
        train_units="all" if lora else f"{FIRST}-8",
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in bfloat16 and float32, tokens, and bundles of both types."""
    path = tmp_path_factory.mktemp("narrow")
    torch.manual_seed(4)
    save_file({n: t.bfloat16().float() for n, t in _model().state_dict().items()}, path / "w.safetensors")
    generator = np.random.default_rng(5)
    tokens = generator.integers(0, CLASSES, (32, LENGTH))
    np.savez(path / "d.npz", inputs=tokens, labels=tokens[:, 0], test_inputs=tokens, test_labels=tokens[:, 0])
    for lora in (0, 2):
        for dtype in ("float32", "bfloat16"):
            torch.manual_seed(9)
            _export(path, f"{dtype}{lora}", dtype, lora)
    return path


def _trained(folder: Path, bundle: str) -> dict[str, torch.Tensor]:
    update = folder / f"{bundle}.safetensors"
    data = f"npz:{folder / 'd.npz'}"
    profl_edge("train", folder / bundle, "--data", data, "--steps", 5, "--lr", RATE, "-o", update, "--json").report()
    return load_file(update)


@pytest.mark.parametrize("lora", [0, 2])
def test_training_is_the_same_to_the_bit_as_from_float32(folder: Path, lora: int) -> None:
    wide, narrow = _trained(folder, f"float32{lora}"), _trained(folder, f"bfloat16{lora}")
    assert set(wide) == set(narrow) and all(torch.equal(wide[name], narrow[name]) for name in wide)


def test_a_step_is_that_of_pytorch(folder: Path) -> None:
    model = _model()
    model.load_state_dict(load_file(folder / "w.safetensors"))
    update = folder / "one.safetensors"
    data = f"npz:{folder / 'd.npz'}"
    done = profl_edge(
        "train", folder / "bfloat160", "--data", data, "--steps", 1, "--lr", RATE, "--seed", 3, "-o", update, "--json"
    ).report()
    trained = load_file(update)
    assert done["loss_first"] > 0 and {n for n in trained} < set(model.state_dict())
    report = profl_edge("eval", folder / "bfloat160", "--data", data, "--initial-prefix", "--json").report()
    tokens = torch.from_numpy(np.load(folder / "d.npz")["inputs"])
    with torch.no_grad():
        logits = model.eval()(tokens)
    loss = functional.cross_entropy(logits, tokens[:, 0])
    assert report["loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("lora", [0, 2])
def test_the_file_has_half_the_bytes_of_what_is_frozen_and_the_plan_counts_them(folder: Path, lora: int) -> None:
    files = [load_file(folder / f"{d}{lora}" / "weights" / "initial.safetensors") for d in ("float32", "bfloat16")]
    narrow = {name for name, tensor in files[1].items() if tensor.dtype == torch.bfloat16}
    assert narrow and all(files[0][name].dim() > 1 for name in narrow)
    assert all(torch.equal(files[0][name], files[1][name].float()) for name in files[0])
    manifests = [_manifest(folder / f"{d}{lora}") for d in ("float32", "bfloat16")]
    step = next(program for program in manifests[1].programs if program.work.trains)
    read = {value.name: value for value in step.inputs if value.role == "frozen"}
    assert narrow <= set(read) and all(read[name].dtype == "bfloat16" for name in narrow)
    assert not narrow & {tensor.name for tensor in step.tensors}
    for name in narrow:  # read anew for each use, into half the bytes
        assert read[name].read_before or read[name].size_bytes < 16 << 10
    arenas = [max(p.memory.arena_bytes for p in m.programs) for m in manifests]
    assert arenas[1] < 1.3 * arenas[0]


def _manifest(bundle: Path) -> Manifest:
    from edge_runtime.device.prepare.bundle import open_bundle

    return open_bundle(bundle).manifest


@pytest.mark.parametrize("lora", [0, 2])
def test_updates_are_merged_and_the_finished_model_is_float32(folder: Path, lora: int) -> None:
    bundle, update, other = folder / f"bfloat16{lora}", folder / "a.safetensors", folder / "b.safetensors"
    for seed, file in ((1, update), (2, other)):
        data = f"npz:{folder / 'd.npz'}"
        profl_edge("train", bundle, "--data", data, "--steps", 2, "--lr", RATE, "--seed", seed, "-o", file)
    merged, finished = folder / "merged.safetensors", folder / "m.safetensors"
    server("merge", bundle, update, other, "-o", merged)
    server("finish", bundle, "--weights", merged, "--initial-blocks", "-o", finished)
    model = _model()
    model.load_state_dict(load_file(finished), strict=True)
    report = profl_edge("eval", bundle, "--data", f"npz:{folder / 'd.npz'}", "--weights", merged, "--json").report()
    tokens = torch.from_numpy(np.load(folder / "d.npz")["inputs"])
    with torch.no_grad():
        loss = functional.cross_entropy(model.eval()(tokens), tokens[:, 0])
    assert report["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_what_trains_every_weight_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--frozen-dtype bfloat16: every weight is trained .*give --train-units or"):
        export_bundle("cnn", tmp_path / "b", width=4, batch=4, input_shape=(3, 8, 8), frozen_dtype="bfloat16", blocks=1)
