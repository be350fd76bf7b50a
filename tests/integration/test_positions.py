"""Models with a label for every token or pixel, some of which do not count: exported, trained and evaluated."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")
pytest.importorskip("executorch", reason="the bundle is written with it")

from safetensors.torch import load_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from device_profiles.contract import IGNORED_LABEL  # noqa: E402
from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.manifest import Loss, Manifest, Optimizer  # noqa: E402
from device_profiles.optimizers import OptimizerName  # noqa: E402
from edge_runtime.device.worker import evaluation  # noqa: E402
from edge_runtime.export.targets.executorch import export_executorch  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support import position_models  # noqa: E402
from tests.support.device_commands import profl_edge  # noqa: E402
from tests.support.position_models import CLASSES, LENGTH, VOCABULARY  # noqa: E402

BATCH, RATE, IGNORED = 6, 0.3, IGNORED_LABEL
TAGGER = {"input_shape": (LENGTH,), "input_dtype": "int64", "classes": CLASSES, "batch": BATCH}
SEGMENTER = {"input_shape": (3, 8, 8), "classes": CLASSES, "batch": BATCH, "blocks": 2}


def _name(model: str) -> str:
    return f"tests.support.position_models:{model}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tagger, whose step was held against PyTorch's, and a batch of data with ignored labels."""
    path = tmp_path_factory.mktemp("tagger")
    export_bundle(_name("tagger"), path / "bundle", partition="0-1", momentum=0.0, weight_decay=0.0, **TAGGER)
    generator = np.random.default_rng(2)
    tokens = generator.integers(0, VOCABULARY, (BATCH, LENGTH))
    labels = generator.integers(0, CLASSES, (BATCH, LENGTH))
    labels[:, ::3] = IGNORED
    labels[1] = IGNORED
    np.savez(path / "d.npz", inputs=tokens, labels=labels, test_inputs=tokens, test_labels=labels)
    return path


def _loss(model: torch.nn.Module, data: Path) -> torch.Tensor:
    arrays = np.load(data)
    logits = model(torch.from_numpy(arrays["inputs"]))
    return functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(arrays["labels"]).flatten())


def test_a_step_is_that_of_pytorch_over_the_labels_that_count(folder: Path) -> None:
    update = folder / "u.safetensors"
    done = profl_edge(
        "train", folder / "bundle", "--data", f"npz:{folder / 'd.npz'}", "--steps", 1, "--lr", RATE, "-o", update,
        "--json",
    ).report()  # fmt: skip
    model = position_models.tagger()
    loss = _loss(model, folder / "d.npz")
    loss.backward()
    assert done["loss_first"] == pytest.approx(loss.item(), rel=1e-5)
    trained = load_file(update)
    for name, parameter in model.named_parameters():
        expected = parameter.detach() - RATE * parameter.grad
        torch.testing.assert_close(trained[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_of_micro_batches_is_over_the_labels_of_the_whole_batch_that_count(
    folder: Path, optimizer: OptimizerName, tmp_path: Path
) -> None:
    """Their numbers differ: of the first examples fewer labels count, and of one none does."""
    settings = Optimizer(name=optimizer, momentum=0.0, weight_decay=0.0)
    options = {**TAGGER, "partition": "0-1", "optimizer": settings, "micro_batch": 2}
    export_bundle(_name("tagger"), tmp_path / "bundle", **options)  # type: ignore[arg-type]
    update = tmp_path / "u.safetensors"
    done = profl_edge(
        "train", tmp_path / "bundle", "--data", f"npz:{folder / 'd.npz'}", "--steps", 1, "--lr", RATE, "-o", update,
        "--json",
    ).report()  # fmt: skip
    model = position_models.tagger()
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    theirs = kind(model.parameters(), lr=RATE, weight_decay=0.0)
    loss = _loss(model, folder / "d.npz")
    loss.backward()
    theirs.step()
    assert done["loss_first"] == pytest.approx(loss.item(), rel=1e-5)
    trained = load_file(update)
    for name, parameter in model.named_parameters():
        # AdamW's first step is the rate times a sign, which rounding decides where a gradient is nearly 0.
        sure = torch.ones_like(parameter, dtype=torch.bool) if optimizer == "sgd" else parameter.grad.abs() > 1e-4
        torch.testing.assert_close(trained[name][sure], parameter.detach()[sure], rtol=1e-4, atol=1e-5)


def test_the_evaluation_is_over_the_labels_that_count(folder: Path) -> None:
    done = profl_edge("eval", folder / "bundle", "--data", f"npz:{folder / 'd.npz'}", "--json").report()
    model = position_models.tagger().eval()
    arrays = np.load(folder / "d.npz")
    guesses = model(torch.from_numpy(arrays["inputs"])).argmax(2).numpy()
    counted = arrays["labels"] != IGNORED
    assert evaluation.IGNORED_LABEL == IGNORED
    assert done["loss"] == pytest.approx(_loss(model, folder / "d.npz").item(), rel=1e-5)
    assert done["accuracy"] == pytest.approx((guesses == arrays["labels"])[counted].mean())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros((BATCH, 3), np.int64), r"labels is int64 \[6, 3\]; the tokens or pixels of this model need labels "),
        (np.zeros((BATCH, LENGTH), np.float32), r"labels are whole numbers: save labels.astype\('int64'\)"),
        (np.full((BATCH, LENGTH), CLASSES), r"label 5 \(example 0\) is outside 0..4"),
        (np.full((BATCH, LENGTH), -1), r"label -1 \(example 0\) is outside 0..4"),
        (np.full((BATCH, LENGTH), IGNORED), r"every label is -100"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, labels: np.ndarray, said: str) -> None:
    np.savez(tmp_path / "d.npz", inputs=np.zeros((BATCH, LENGTH), np.int64), labels=labels)
    arguments = ("train", folder / "bundle", "--data", f"npz:{tmp_path / 'd.npz'}", "--steps", 1)
    refusal = profl_edge(*arguments, "-o", tmp_path / "u.safetensors").refusal(2)
    assert re.search(said, refusal), refusal


@pytest.mark.parametrize(
    ("model", "options", "positions"), [("tagger_first", TAGGER, LENGTH), ("segmenter", SEGMENTER, 64)]
)
def test_classes_in_another_dimension_are_verified_as_well(
    model: str, options: dict[str, object], positions: int, tmp_path: Path
) -> None:
    manifest: Manifest = export_bundle(_name(model), tmp_path / "bundle", **options)  # type: ignore[arg-type]
    assert manifest.model.positions == positions
    shapes = {value.shape for p in manifest.programs for value in p.inputs if value.role == "label"}
    assert shapes == {(BATCH, positions)}


def test_what_is_not_done_with_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--loss mse: cannot be combined with a label for each of the 7 tokens"):
        export_bundle(_name("tagger"), tmp_path / "b", loss=Loss(name="mse"), **TAGGER)
    with pytest.raises(UsageError, match=r"--target executorch: .*only the native target trains it"):
        export_executorch(_name("tagger"), tmp_path / "e", **TAGGER)
    assert list(tmp_path.iterdir()) == []
