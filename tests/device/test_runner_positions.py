"""`profl-train` with a label for every token or pixel: what `profl-edge` writes and prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="a bundle is exported with it")

from device_profiles.contract import IGNORED_LABEL
from edge_runtime.export.targets.native import export_bundle
from tests.support.device_commands import profl_edge
from tests.support.position_models import CLASSES, LENGTH, VOCABULARY
from tests.support.runner import built_runner, run

pytestmark = pytest.mark.timeout(1800)

EXAMPLES = 15
TAGGER = {"input_shape": (LENGTH,), "input_dtype": "int64", "classes": CLASSES, "partition": "0-1"}
SEGMENTER = {"input_shape": (3, 8, 8), "classes": CLASSES, "blocks": 2}


@pytest.fixture(scope="module")
def runner() -> Path:
    return built_runner()


def _data(path: Path, name: str) -> str:
    """Examples of a model, with labels that do not count among them; of two examples none does."""
    random = np.random.default_rng(5)

    def part(examples: int) -> tuple[np.ndarray, np.ndarray]:
        if name == "tagger":
            inputs, shape = random.integers(0, VOCABULARY, (examples, LENGTH)), (LENGTH,)
        else:
            inputs, shape = random.standard_normal((examples, 3, 8, 8)).astype(np.float32), (8, 8)
        labels = random.integers(0, CLASSES, (examples, *shape))
        labels[random.random(labels.shape) < 0.3] = IGNORED_LABEL
        labels[:2] = IGNORED_LABEL
        return inputs, labels

    (inputs, labels), (test_inputs, test_labels) = part(EXAMPLES), part(7)
    np.savez(path, inputs=inputs, labels=labels, test_inputs=test_inputs, test_labels=test_labels)
    return f"npz:{path}"


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize(("name", "options"), [("tagger", TAGGER), ("segmenter", SEGMENTER)])
def test_update_and_evaluation_are_those_of_python(
    runner: Path, name: str, options: dict[str, object], micro_batch: int | None, tmp_path: Path
) -> None:
    bundle, data = tmp_path / "bundle", _data(tmp_path / "d.npz", name)
    export_bundle(
        f"tests.support.position_models:{name}",
        bundle,
        batch=4,
        micro_batch=micro_batch,
        verify=False,
        **options,  # type: ignore[arg-type]  # of the model
    )
    arguments = (bundle, "--block", 1, "--data", data, "--threads", 2)
    ours, theirs = tmp_path / "runner.safetensors", tmp_path / "python.safetensors"
    ran = run(runner, *arguments, "--steps", 7, "--json", "-o", ours).report()
    python = profl_edge("train", *arguments, "--steps", 7, "--json", "-o", theirs).report()
    for key in ("loss_first", "loss_last", "loss_smoothed"):
        assert ran[key] == python[key]
    assert ours.read_bytes() == theirs.read_bytes()
    weights = ("--weights", ours)
    scored = run(runner, "--evaluate", *arguments, *weights, "--json").report()
    python = profl_edge("eval", *arguments, *weights, "--json").report()
    assert scored["accuracy"] == python["accuracy"] and scored["examples"] == python["examples"] == 7
    assert scored["loss"] == pytest.approx(python["loss"], rel=1e-12)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("tagger") / "bundle"
    export_bundle("tests.support.position_models:tagger", bundle, batch=4, verify=False, **TAGGER)  # type: ignore[arg-type]
    return bundle


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (np.zeros((4, 3), np.int64), "labels are [4, 3]; the tokens or pixels of this model need labels [n, 7]"),
        (np.zeros((4, LENGTH), np.float32), "labels is <f4 [4, 7]; expected whole numbers"),
        (np.full((4, LENGTH), CLASSES), f"label {CLASSES} (example 0) is outside 0..{CLASSES - 1}; correct the labels"),
        (np.full((4, LENGTH), -1), "label -1 (example 0) is not a class; correct the labels"),
        (np.full((4, LENGTH), IGNORED_LABEL), "every label is -100, which none counts of"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    runner: Path, tagger: Path, labels: np.ndarray, line: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "d.npz", inputs=np.zeros((4, LENGTH), np.int64), labels=labels)
    assert line in run(runner, tagger, "--block", 1, "--data", f"npz:{tmp_path / 'd.npz'}").refusal()


def test_a_program_that_takes_fewer_labels_than_the_model_has_is_refused(
    runner: Path, tagger: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "bundle"
    damaged.mkdir()
    for part in ("programs", "weights"):
        (damaged / part).symlink_to(tagger / part)
    text = (tagger / "manifest.json").read_text()
    assert text.count('"positions":7') + text.count('"positions": 7') == 1
    (damaged / "manifest.json").write_text(text.replace('"positions": 7', '"positions": 70').replace('s":7', 's":70'))
    data = _data(tmp_path / "d.npz", "tagger")
    assert "its labels are not 70 for each example" in run(runner, damaged, "--block", 1, "--data", data).refusal()
