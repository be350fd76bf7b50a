"""Mean and deviation of data, as an export takes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import DataError
from edge_runtime.device.cli import main
from edge_runtime.device.data.moments import moments
from edge_runtime.device.data.open import open_raw


def test_of_features_and_of_pixels_between_0_and_1(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    inputs = (1000 + generator.normal(size=(40, 3, 5)) * [[1], [5], [0]]).astype(np.float32)
    images = generator.integers(0, 256, (40, 3, 4, 4)).astype(np.uint8)
    labels = np.arange(40) % 4
    np.savez(tmp_path / "i.npz", inputs=inputs, labels=labels)
    np.savez(tmp_path / "p.npz", images=images, labels=labels)
    for name, values, axes in (("i", inputs, (0, 2)), ("p", images / 255, (0, 2, 3))):
        spec = f"npz:{tmp_path / name}.npz"
        mean, std = moments(open_raw(spec, split="train"), spec, limit=1000)
        expected = values.std(axes, dtype=np.float64)
        np.testing.assert_allclose(mean, values.mean(axes, dtype=np.float64), rtol=1e-6)
        np.testing.assert_allclose(std, np.where(expected == 0, 1, expected), rtol=1e-5)


def test_only_training_examples_count_and_not_more_than_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", inputs=np.arange(40, dtype=np.float32)[:, None], labels=np.zeros(40, np.int64))
    spec = f"npz:{tmp_path / 'i.npz'}?test=0.5"
    data = open_raw(spec, split="train")
    kept = np.empty((20, 1), np.float32)
    data.fetch(range(20), kept)  # type: ignore[union-attr]
    assert moments(data, spec, limit=100)[0] == pytest.approx([kept.mean()])
    assert moments(data, spec, limit=1)[0][0] in kept


def test_the_command_writes_the_options_of_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n1,10,0\n3,10,1\n")
    spec = f"csv:{tmp_path / 't.csv'}?label=y"
    assert main(["statistics", "--data", spec]) == 0
    assert capsys.readouterr().out == "--mean=2,10 --std=1,1\n"
    assert main(["statistics", "--data", spec, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"mean": [2.0, 10.0], "std": [1.0, 1.0]}


def test_tokens_have_no_mean(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("x" * 200)
    spec = f"text:{tmp_path / 't.txt'}"
    with pytest.raises(DataError, match="holds tokens, which have no mean"):
        moments(open_raw(spec, split="train"), spec, limit=10)
