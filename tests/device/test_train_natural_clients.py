"""The built-in models of sensors and of text, by the commands alone, on the data sets that they are for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.support.device_commands import profl_edge

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="exporting needs executorch: pip install profl-edge[export]"
)


@pytest.mark.skipif(importlib.util.find_spec("seglearn") is None, reason="the package seglearn is not installed")
def test_motion_of_watches_is_learned_without_naming_shapes(tmp_path: Path) -> None:
    bundle, weights = tmp_path / "bundle", tmp_path / "update.safetensors"
    profl_edge("export", "--model", "cnn1d", "--width", 8, "--block", 1, "--no-verify", "-o", bundle, "--json").report()
    trained = profl_edge(
        "train", bundle, "--block", 1, "--data", "smartwatch", "--epochs", 1, "--lr", 0.05, "-o", weights, "--json",
        guarded=True,
    ).report()  # fmt: skip
    assert trained["loss_last"] < 0.7 * trained["loss_first"]
    scored = profl_edge(
        "eval", bundle, "--block", 1, "--data", "smartwatch", "--weights", weights, "--json", guarded=True
    ).report()
    assert scored["accuracy"] > 0.35  # 0.17 is the largest class


def test_characters_of_a_role_are_learned_without_naming_shapes(tmp_path: Path) -> None:
    bundle, plays, weights = tmp_path / "bundle", tmp_path / "plays", tmp_path / "update.safetensors"
    plays.mkdir()
    words = np.random.default_rng(0).choice(["the king", "my lord", "a crown", "good night"], 1500)
    lines = "\n".join(" ".join(words[at : at + 6]) for at in range(0, len(words), 6))
    (plays / "play.txt").write_text(f"KING.\n{lines}\n")
    profl_edge(
        "export", "--model", "text_transformer", "--width", 16, "--block", 1, "--no-verify", "-o", bundle, "--json"
    ).report()
    trained = profl_edge(
        "train", bundle, "--block", 1, "--data", f"shakespeare:{plays}", "--steps", 60, "--lr", 0.2, "-o", weights,
        "--json", guarded=True,
    ).report()  # fmt: skip
    assert trained["loss_last"] < 0.8 * trained["loss_first"]
    refused = profl_edge("train", bundle, "--block", "1", "--data", "digits", "-o", weights)
    assert "npz:FILE" in refused.refusal(2)
