"""Models of tokens on the device: int64 data, dropout and AdamW that resume bit for bit, targets instead of labels."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edge_runtime.device.data import open_data
from edge_runtime.device.data.arrays import ArraySource
from edge_runtime.device.data.npz_writing import write_arrays
from tests.support.device_commands import profl_edge, start, wait_for


def _export(output: Path, model: str, *options: str) -> Path:
    for package in ("torch", "executorch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"exporting a bundle needs {package}: pip install profl-edge[export]")
    model = f"tests.support.token_models:{model}"
    done = profl_edge("export", "--model", model, "--batch", 8, *options, "--no-verify", "-o", output)
    assert done.status == 0, done.errors
    return output


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundles") / "text"
    options = ["--input", "12", "--input-dtype", "int64", "--classes", "4", "--partition", "0-1,2-4"]
    return _export(output, "text_norm_first", *options, "--optimizer", "adamw", "--clip-norm", "1", "--block", "2")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class of a text is the token that it holds most often."""
    random = np.random.default_rng(0)
    labels = np.arange(64) % 4
    inputs = random.integers(4, 60, (64, 12))
    inputs[:, ::2] = labels[:, None]
    path = tmp_path_factory.mktemp("data") / "tokens.npz"
    write_arrays(path, inputs.astype(np.int64), labels)
    return path


def _arguments(bundle: Path, data: Path, output: Path, *more: object) -> list[object]:
    arguments: list[object] = ["train", bundle, "--block", 2, "--data", f"npz:{data}", "--lr", 0.01, "--threads", 2]
    return [*arguments, "--seed", 5, "--checkpoint-every", 4, "-o", output, "--json", *more]


def test_a_killed_run_with_dropout_and_adamw_resumes_bit_equal(text_bundle: Path, tokens: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    report = profl_edge(*_arguments(text_bundle, tokens, whole, "--steps", 600), guarded=True).report()
    assert report["loss_last"] < 0.5 * report["loss_first"]
    process = start(*_arguments(text_bundle, tokens, killed, "--steps", 600))
    checkpoint = killed.with_name(killed.name + ".checkpoint")
    wait_for(checkpoint, process)
    process.kill()
    process.communicate()
    continued = profl_edge(*_arguments(text_bundle, tokens, killed, "--steps", 600, "--resume")).report()
    assert 0 < continued["resumed_from"] < 600
    assert killed.read_bytes() == whole.read_bytes()


def test_dropout_follows_from_the_seed_and_not_from_the_threads(
    text_bundle: Path, tokens: Path, tmp_path: Path
) -> None:
    outputs = {}
    for name, more in {"a": (), "b": ("--threads", 1), "c": ("--seed", 6)}.items():
        output = tmp_path / name
        profl_edge(*_arguments(text_bundle, tokens, output, "--steps", 3, *more)).report()
        outputs[name] = output.read_bytes()
    assert outputs["a"] == outputs["b"]
    assert outputs["a"] != outputs["c"]


def test_a_trained_text_model_is_evaluated_without_dropout(text_bundle: Path, tokens: Path, tmp_path: Path) -> None:
    output = tmp_path / "update.safetensors"
    profl_edge(*_arguments(text_bundle, tokens, output, "--steps", 200)).report()
    evaluate = ["eval", text_bundle, "--block", 2, "--data", f"npz:{tokens}", "--split", "train"]
    evaluate += ["--weights", output, "--initial-prefix", "--json"]
    first, second = (profl_edge(*evaluate).report() for _ in range(2))
    assert first["accuracy"] > 0.9
    assert first["loss"] == second["loss"]


@pytest.mark.parametrize("examples", [9, 61])
def test_a_last_batch_that_is_not_full_is_evaluated(
    examples: int, text_bundle: Path, tokens: Path, tmp_path: Path
) -> None:
    """What lies in its other rows is no token: the table would be read outside."""
    whole = np.load(tokens)
    write_arrays(tmp_path / "part.npz", whole["inputs"][:examples], whole["labels"][:examples])
    command = ["eval", text_bundle, "--block", 2, "--json", "--split", "train", "--data"]
    report = profl_edge(*command, f"npz:{tmp_path / 'part.npz'}").report()
    # The same ones eight times, in full batches.
    write_arrays(
        tmp_path / "full.npz", *(np.concatenate([whole[name][:examples]] * 8) for name in ("inputs", "labels"))
    )
    full = profl_edge(*command, f"npz:{tmp_path / 'full.npz'}").report()
    assert (report["examples"], full["examples"]) == (examples, 8 * examples)
    assert report["loss"] == pytest.approx(full["loss"], rel=1e-5)


@pytest.mark.parametrize("wrong", [-1, 60])
def test_a_token_outside_the_vocabulary_is_refused_before_training(
    text_bundle: Path, tmp_path: Path, wrong: int
) -> None:
    inputs = np.ones((16, 12), np.int64)
    inputs[9, 3] = wrong
    write_arrays(tmp_path / "wrong.npz", inputs, np.arange(16) % 4)
    line = profl_edge(*_arguments(text_bundle, tmp_path / "wrong.npz", tmp_path / "out")).refusal(2)
    assert f"token {wrong} (example 9) is outside 0..59" in line


def test_data_of_another_type_or_shape_is_refused(text_bundle: Path, tmp_path: Path) -> None:
    for number, inputs in enumerate((np.zeros((16, 12), np.float32), np.zeros((16, 11), np.int64))):
        path = tmp_path / f"{number}.npz"
        write_arrays(path, inputs, np.zeros(16, np.int64))
        line = profl_edge(*_arguments(text_bundle, path, tmp_path / "out")).refusal(2)
        assert "the model takes int64 of 12 for an example" in line
    line = profl_edge("train", text_bundle, "--block", 2, "--data", "digits", "-o", tmp_path / "out", "--json").refusal(
        2
    )
    assert "needs npz:FILE" in line


def test_the_bench_fills_in_tokens(text_bundle: Path) -> None:
    report = profl_edge("bench", text_bundle, "--block", 2, "--steps", 2, "--json").report()
    assert report["steps"] == 2


def test_targets_are_learned_with_the_mean_squared_error(tmp_path: Path) -> None:
    bundle = _export(
        tmp_path / "bundle", "mlp", "--input", "20", "--classes", "5", "--loss", "mse", "--partition", "0-2",
        "--nesterov",
    )  # fmt: skip
    random = np.random.default_rng(1)
    inputs = random.standard_normal((64, 20)).astype(np.float32)
    write_arrays(tmp_path / "data.npz", inputs, 3.0 * inputs[:, :5])
    arguments = ["--block", 1, "--data", f"npz:{tmp_path / 'data.npz'}", "--lr", 0.02, "--epochs", 40, "--json"]
    report = profl_edge("train", bundle, *arguments, "-o", tmp_path / "update").report()
    assert report["loss_last"] < 0.6 * report["loss_first"]
    evaluated = profl_edge(
        "eval", bundle, "--block", 1, *arguments[2:4], "--split", "train", "--weights", tmp_path / "update", "--json"
    ).report()
    assert evaluated["accuracy"] is None
    assert evaluated["loss"] < 0.6 * report["loss_first"]
    wrong = tmp_path / "wrong.npz"
    write_arrays(wrong, inputs, np.zeros((64, 3), np.float32))
    line = profl_edge(
        "train", bundle, "--block", 1, "--data", f"npz:{wrong}", "-o", tmp_path / "out", "--json"
    ).refusal(2)
    assert "needs numbers [n, 5]" in line


def test_held_out_inputs_train_as_if_the_file_had_no_others(text_bundle: Path, tokens: Path, tmp_path: Path) -> None:
    spec = f"{tokens}?test=0.25&seed=3"
    kept = open_data(f"npz:{spec}", split="train", input_shape=(12,), input_dtype="int64")
    assert isinstance(kept, ArraySource)
    rows = np.empty((len(kept), 12), np.int64)
    kept.fetch(range(len(kept)), rows)
    write_arrays(tmp_path / "kept.npz", rows, np.array(kept.labels))
    updates = [tmp_path / "some.safetensors", tmp_path / "all.safetensors"]
    for data, update in zip((spec, tmp_path / "kept.npz"), updates, strict=True):
        report = profl_edge(*_arguments(text_bundle, Path(data), update, "--steps", 20)).report()
        assert report["examples"] == 48
    first, second = (load_file(update) for update in updates)
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
    evaluated = profl_edge("eval", text_bundle, "--block", 2, "--data", f"npz:{spec}", "--json")
    assert evaluated.report()["examples"] == 16
