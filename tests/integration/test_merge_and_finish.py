"""From updates of `profl-edge train` to the finished model, by `profl-server merge` and `finish`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the bundle is exported with torch")
pytest.importorskip("executorch", reason="the bundle is written with it")

from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from safetensors.torch import load_file as load_torch  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.device.prepare.bundle import open_bundle  # noqa: E402
from edge_runtime.export import models  # noqa: E402
from server.finished.weight_layers import lay_weights  # noqa: E402
from tests.support.device_commands import profl_edge  # noqa: E402
from tests.support.merging import Train, merge, prepared, server, trainer  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("merge"))


@pytest.fixture(scope="module")
def train(folder: Path) -> Train:
    return trainer(folder)


def test_updates_are_averaged_by_their_examples_with_the_base_below_them(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    one, two = train("a", 1), train("b", 1)
    report = merge(folder, one, two, "-o", tmp_path / "w.safetensors")
    merged, initial = load_file(tmp_path / "w.safetensors"), load_file(folder / "bundle/weights/initial.safetensors")
    a, b = load_file(one), load_file(two)
    assert set(merged) == set(initial) and set(a) == set(b) < set(initial)
    for name, tensor in merged.items():
        mean = (8 * a[name].astype(np.float64) + 24 * b[name]) / 32 if name in a else initial[name]
        np.testing.assert_allclose(tensor, mean, rtol=1e-6, atol=1e-8, err_msg=name)
    assert [(u["update"], u["examples"], u["weight"]) for u in report["updates"]] == [
        (str(one), 8, 0.25), (str(two), 24, 0.75),
    ]  # fmt: skip
    names = [name for name in a if "running" not in name]
    moved = np.concatenate([(a[name] - initial[name]).ravel() for name in names])
    assert report["updates"][0]["move"] == pytest.approx(float(np.sqrt(np.mean(moved.astype(np.float64) ** 2))))
    assert report["rejected"] == {}
    with safe_open(tmp_path / "w.safetensors", "numpy") as opened:
        assert json.loads(opened.metadata()["weights"]) == {
            "base_version": report["base_version"], "updates": 2, "version": report["version"],
        }  # fmt: skip
    # The version that training from these weights states.
    assert lay_weights(open_bundle(folder / "bundle"), [tmp_path / "w.safetensors"]).version == report["version"]


def test_the_table_names_what_was_averaged(folder: Path, train: Train, tmp_path: Path) -> None:
    one, two = train("a", 1), train("b", 1)
    said = server("merge", folder / "bundle", one, two, "-o", tmp_path / "w.safetensors").stdout.splitlines()
    assert said[0].split() == ["update", "program", "examples", "weight", "move"]
    assert said[1].split()[:4] == [str(one), "grow-block1", "8", "25.0%"]
    assert re.fullmatch(rf"wrote {tmp_path}/w\.safetensors, version [0-9a-f]{{16}}", said[3])


def test_from_updates_to_a_finished_model_that_pytorch_loads_and_computes_the_same_with(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    base: tuple[Path, ...] = ()
    for block in (1, 2, 3):
        with_base = [word for path in base for word in ("--weights", path)]
        updates = [train(client, block, weights=base) for client in ("a", "b")]
        output = tmp_path / f"round{block}.safetensors"
        merge(folder, *updates, *with_base, "-o", output)
        base = (output,)
    model_file = tmp_path / "model.safetensors"
    said = server("finish", folder / "bundle", "--weights", base[0], "-o", model_file).stdout
    assert said == f"wrote {model_file}: 20 tensors of cnn, 10 classes\n"
    model = models.create("cnn", width=4, classes=10)
    assert len(model.state_dict()) == 20
    model.load_state_dict(load_torch(model_file), strict=True)
    with safe_open(model_file, "numpy") as opened:
        assert json.loads(opened.metadata()["model"]) == {
            "name": "cnn", "classes": 10, "input_shape": [3, 8, 8], "input_dtype": "float32",
            "pixels": "(pixel / 255 - 0.5) / 0.5",
        }  # fmt: skip
    data = folder / "b.npz"
    evaluated = profl_edge(
        "eval", folder / "bundle", "--data", f"npz:{data}", "--weights", model_file, "--json"
    ).report()
    arrays = np.load(data)
    pixels = (torch.from_numpy(arrays["test_images"]).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        logits = model.eval()(pixels)
    labels = torch.from_numpy(arrays["test_labels"])
    assert evaluated["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)
    assert evaluated["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))


def test_blocks_that_were_never_trained_are_named_and_asked_for(folder: Path, train: Train, tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    arguments = ("finish", folder / "bundle", "--weights", train("a", 2), "-o", output)
    with pytest.raises(UsageError, match="--weights: block 1, block 3 still at the bundle's initial values"):
        server(*arguments)
    assert not output.exists()
    done = server(*arguments, "--initial-blocks")
    assert "at initial values: block 1, block 3" in done.stderr and output.exists()
    assert json.loads(server(*arguments, "--initial-blocks", "--json").stdout)["initial"] == ["block 1", "block 3"]


def test_runs_of_blocks_merge_as_a_round_of_elastic(folder: Path, train: Train, tmp_path: Path) -> None:
    alone, together = train("a", 2), train("b", 2, "--first-block", "1")
    merge(folder, alone, together, "-o", tmp_path / "w.safetensors")
    merged, initial = load_file(tmp_path / "w.safetensors"), load_file(folder / "bundle/weights/initial.safetensors")
    name = next(n for n in load_file(together) if n not in load_file(alone) and n.endswith("weight"))
    # Who held block 1 frozen counts with what it held.
    expected = (8 * initial[name] + 24 * load_file(together)[name].astype(np.float64)) / 32
    np.testing.assert_allclose(merged[name], expected, rtol=1e-6, atol=1e-8)


def test_updates_of_blocks_that_share_tensors_are_refused_with_the_way_to_do_it(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"trained grow-block1 and .* grow-block2, both with tensor"):
        merge(folder, train("a", 1), train("b", 2), "-o", tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_works_that_share_no_tensor_merge_in_one_call(folder: Path, train: Train, tmp_path: Path) -> None:
    first, second = train("a", 2, "--purpose", "distill"), train("a", 3, "--purpose", "distill")
    report = merge(folder, first, second, "-o", tmp_path / "w.safetensors")
    assert [update["program"] for update in report["updates"]] == ["distill-block2", "distill-block3"]
    assert [update["weight"] for update in report["updates"]] == [1.0, 1.0]
    merged = load_file(tmp_path / "w.safetensors")
    for path in (first, second):
        for name, tensor in load_file(path).items():
            np.testing.assert_array_equal(merged[name], tensor)


def test_the_lines_of_the_docs_load_the_finished_model(
    folder: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    update = train("a", 1)
    server("finish", folder / "bundle", "--weights", update, "--initial-blocks", "-o", tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code, scope)  # what readers copy
    trained = load_torch(update)
    own = [name for name in trained if name in scope["model"].state_dict()]
    assert own
    for name in own:
        torch.testing.assert_close(scope["model"].state_dict()[name], trained[name], rtol=0, atol=0)
