"""Fleets that train with other losses than the cross-entropy of one label: both engines come to the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the models are torch's")
pytest.importorskip("executorch", reason="the bundle is written with it")

from safetensors.torch import load_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from device_profiles.contract import IGNORED_LABEL  # noqa: E402
from tests.support import position_models, warm  # noqa: E402
from tests.support.position_models import CLASSES, LENGTH, VOCABULARY  # noqa: E402

COUNT, TESTS = 24, 10
FLEET = """
[model]
name = "tests.support.position_models:{model}"
batch = 4
{settings}

[data]
sources = ["npz:{data}"]
test_examples = 6

[[clients]]
name = "a"
limit_mb = 100
[[clients]]
name = "b"
limit_mb = 100

[method]
name = "{method}"
{more}

[training]
steps = 3
{rounds}
learning_rate = 0.1
weight_decay = 0.0

[freezing]
window = 1
fit_length = 2
max_rounds = 2
"""
TAGGER = f'input_shape = [{LENGTH}]\ninput_dtype = "int64"\nclasses = {CLASSES}\n'
SENSOR = 'input_shape = [5]\nclasses = 3\npartition = "0,1"\n'
CASES = {
    "tokens": ("tagger", TAGGER + 'partition = "0,1"\n', "profl", "shrinking = true\nshrink_rounds = 1"),
    "pixels": ("segmenter", f'input_shape = [3, 8, 8]\nclasses = {CLASSES}\npartition = "0,1"\n', "elastic", ""),
    "smoothed": ("sensor", SENSOR + "label_smoothing = 0.2\n", "profl", ""),
    "mse": ("sensor", SENSOR + 'loss = "mse"\n', "profl", "shrinking = true\nshrink_rounds = 1"),
    "one_number": ("gauge", 'input_shape = [5]\nclasses = 1\nloss = "mse"\n', "elastic", ""),
    "planned_tokens": ("tagger", TAGGER + 'partition = "0,1"\n', "planned", ""),
    "planned_smoothed": ("sensor", SENSOR + "label_smoothing = 0.2\n", "planned", ""),
    "planned_mse": ("sensor", SENSOR + 'loss = "mse"\n', "planned", ""),
    "tuned": ("tagger", TAGGER + 'train_units = "1-1"\nlora = 2\nlabel_smoothing = 0.1\n', "finetune", ""),
}


def _labels(case: str, generator: np.random.Generator, count: int) -> np.ndarray:
    if case in ("mse", "one_number"):
        return generator.standard_normal((count, 3) if case == "mse" else count).astype(np.float32)
    if case == "smoothed":
        return generator.integers(0, 3, count)
    shape = (count, 8, 8) if case == "pixels" else (count, LENGTH)
    labels = generator.integers(0, CLASSES, shape)
    labels[:, ::3] = IGNORED_LABEL
    labels[:2] = IGNORED_LABEL  # of some examples no label counts
    return labels


def _inputs(case: str, generator: np.random.Generator, count: int) -> np.ndarray:
    if case in ("tokens", "tuned"):
        return generator.integers(0, VOCABULARY, (count, LENGTH))
    shape = (count, 3, 8, 8) if case == "pixels" else (count, 5)
    return generator.standard_normal(shape).astype(np.float32)


def _run(folder: Path, case: str, engine: str, *, method: str = "", split: str = "") -> Any:
    model, settings, own, more = CASES[case]
    case = case.removeprefix("planned_")
    generator, data = np.random.default_rng(3), folder / "data.npz"
    arrays = {
        f"{part}{name}": make(case, generator, count)
        for part, count in (("", COUNT), ("test_", TESTS))
        for name, make in (("inputs", _inputs), ("labels", _labels))
    }
    np.savez(data, **arrays)
    rounds = "rounds = 3" if own in ("finetune", "planned") else ""
    text = FLEET.format(
        rounds=rounds, model=model, settings=settings, data=data, method=method or own, more="" if method else more
    )
    if split:
        text = text.replace("test_examples = 6", f'split = "{split}"')
    fleet, output = folder / "fleet.toml", folder / engine
    fleet.write_text(text)
    options = ["--no-whole-network"] if engine == "local" else []
    done = warm.run(
        warm.PROFL_SERVER, "run", "--fleet", fleet, "--engine", engine, "-o", output, *options, folder=folder
    )
    return done, output


@pytest.mark.parametrize("case", CASES)
def test_both_engines_train_and_judge_alike(case: str, tmp_path: Path) -> None:
    summaries, states, rounds = [], [], []
    for engine in ("local", "simulation"):
        done, output = _run(tmp_path, case, engine)
        assert done.returncode == 0, done.stderr
        summaries.append(json.loads((output / "summary.json").read_text()))
        states.append(load_file(output / "model.safetensors"))
        rounds.append([json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()])
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=2e-3, atol=2e-4, msg=name)
    assert [r["stage"] for r in rounds[0]] == [r["stage"] for r in rounds[1]]
    for ours, theirs in zip(*rounds, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
        assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=2e-3)
    assert all((summary["accuracy"] is None) == (case in ("mse", "planned_mse", "one_number")) for summary in summaries)
    assert summaries[0]["test_loss"] == pytest.approx(summaries[1]["test_loss"], rel=2e-3)


@pytest.mark.parametrize("case", ["tokens", "mse"])
def test_the_finished_model_is_judged_as_pytorch_judges_it(case: str, tmp_path: Path) -> None:
    done, output = _run(tmp_path, case, "simulation")
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "summary.json").read_text())
    model = getattr(position_models, CASES[case][0])().eval()
    model.load_state_dict(load_file(output / "model.safetensors"), strict=True)
    arrays = np.load(tmp_path / "data.npz")
    outputs, labels = model(torch.from_numpy(arrays["test_inputs"])), torch.from_numpy(arrays["test_labels"])
    if case == "mse":
        assert summary["accuracy"] is None and "loss on the test set" in done.stdout
        assert summary["test_loss"] == pytest.approx(functional.mse_loss(outputs, labels).item(), rel=1e-5)
        return
    counted = labels != IGNORED_LABEL
    loss = functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())
    assert summary["test_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert summary["accuracy"] == pytest.approx((outputs.argmax(2) == labels)[counted].double().mean().item())


def test_a_split_by_classes_of_what_has_several_labels_is_refused(tmp_path: Path) -> None:
    done, _ = _run(tmp_path, "tokens", "simulation", split="dirichlet")
    assert done.returncode == 2
    assert "data.split dirichlet: goes by the class of an example" in done.stderr and "iid or natural" in done.stderr


@pytest.mark.parametrize(("case", "what"), [("tokens", "labels of 7 tokens or pixels"), ("mse", "the loss mse")])
def test_a_method_that_goes_by_classes_is_refused(case: str, what: str, tmp_path: Path) -> None:
    done, _ = _run(tmp_path, case, "simulation", method="depthfl")
    assert done.returncode == 2 and done.stderr.count("\n") <= 2
    assert "method.name depthfl: compares the probabilities" in done.stderr and what in done.stderr
