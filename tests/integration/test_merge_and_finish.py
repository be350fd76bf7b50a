"""From updates of `profl-edge train` to the finished model, by `profl-server merge` and `finish`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the bundle is exported with torch")
pytest.importorskip("executorch", reason="the bundle is written with it")

import msgspec  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from safetensors.torch import load_file as load_torch  # noqa: E402

from device_profiles.errors import ExecutionError, FormatError, ProflError, UsageError  # noqa: E402
from device_profiles.update import UpdateMetadata  # noqa: E402
from edge_runtime.device.prepare.bundle import open_bundle  # noqa: E402
from edge_runtime.export import models  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from server.cli import cli  # noqa: E402
from server.finished.weight_layers import lay_weights  # noqa: E402
from tests.support.device_commands import profl_edge  # noqa: E402

SHAPE = (3, 8, 8)
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the model `cnn`, and the parts of two clients of different size."""
    folder = tmp_path_factory.mktemp("merge")
    export_bundle("cnn", folder / "bundle", width=4, batch=4, input_shape=SHAPE, joint=True, verify=False)
    generator = np.random.default_rng(0)
    for client, count in (("a", 8), ("b", 24)):
        images = generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
        labels = np.arange(count, dtype=np.int64) % 10
        arrays = {"images": images, "labels": labels, "test_images": images[:8], "test_labels": labels[:8]}
        np.savez(folder / f"{client}.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def train(folder: Path) -> Train:
    """Train for a client and return its update; trained once for the same arguments."""

    def go(client: str, block: int, *options: str, weights: tuple[Path, ...] = ()) -> Path:
        version = lay_weights(open_bundle(folder / "bundle"), weights).version
        made = "-".join([client, str(block), *options, version]).replace("/", "_")
        output = folder / f"{made}.safetensors"
        if not output.exists():
            command = ["train", str(folder / "bundle"), "--block", str(block), "--data", f"npz:{folder / client}.npz"]
            command += ["--steps", "2", "--lr", "0.01", "-o", str(output), *options]
            for path in weights:
                command += ["--weights", str(path)]
            assert profl_edge(*command).status == 0
        return output

    return go


def _server(*arguments: object) -> Any:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if isinstance(done.exception, ProflError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def _merge(folder: Path, *arguments: object) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(_server("merge", folder / "bundle", *arguments, "--json").stdout)
    return read


def test_updates_are_averaged_by_their_examples_with_the_base_below_them(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    one, two = train("a", 1), train("b", 1)
    report = _merge(folder, one, two, "-o", tmp_path / "w.safetensors")
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
    said = _server("merge", folder / "bundle", one, two, "-o", tmp_path / "w.safetensors").stdout.splitlines()
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
        _merge(folder, *updates, *with_base, "-o", output)
        base = (output,)
    model_file = tmp_path / "model.safetensors"
    said = _server("finish", folder / "bundle", "--weights", base[0], "-o", model_file).stdout
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
        _server(*arguments)
    assert not output.exists()
    done = _server(*arguments, "--initial-blocks")
    assert "at initial values: block 1, block 3" in done.stderr and output.exists()
    assert json.loads(_server(*arguments, "--initial-blocks", "--json").stdout)["initial"] == ["block 1", "block 3"]


def test_runs_of_blocks_merge_as_a_round_of_elastic(folder: Path, train: Train, tmp_path: Path) -> None:
    alone, together = train("a", 2), train("b", 2, "--first-block", "1")
    _merge(folder, alone, together, "-o", tmp_path / "w.safetensors")
    merged, initial = load_file(tmp_path / "w.safetensors"), load_file(folder / "bundle/weights/initial.safetensors")
    name = next(n for n in load_file(together) if n not in load_file(alone) and n.endswith("weight"))
    # Who held block 1 frozen counts with what it held.
    expected = (8 * initial[name] + 24 * load_file(together)[name].astype(np.float64)) / 32
    np.testing.assert_allclose(merged[name], expected, rtol=1e-6, atol=1e-8)


def test_updates_of_blocks_that_share_tensors_are_refused_with_the_way_to_do_it(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"trained grow-block1 and .* grow-block2, both with tensor"):
        _merge(folder, train("a", 1), train("b", 2), "-o", tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_works_that_share_no_tensor_merge_in_one_call(folder: Path, train: Train, tmp_path: Path) -> None:
    first, second = train("a", 2, "--purpose", "distill"), train("a", 3, "--purpose", "distill")
    report = _merge(folder, first, second, "-o", tmp_path / "w.safetensors")
    assert [update["program"] for update in report["updates"]] == ["distill-block2", "distill-block3"]
    assert [update["weight"] for update in report["updates"]] == [1.0, 1.0]
    merged = load_file(tmp_path / "w.safetensors")
    for path in (first, second):
        for name, tensor in load_file(path).items():
            np.testing.assert_array_equal(merged[name], tensor)


def _changed(update: Path, output: Path, *, tensors: dict[str, Any] | None = None, **fields: object) -> Path:
    with safe_open(update, "numpy") as opened:
        metadata = UpdateMetadata.from_strings(opened.metadata(), str(update))
    metadata = msgspec.structs.replace(metadata, **fields)
    save_file({**load_file(update), **(tensors or {})}, output, metadata=metadata.to_strings())
    return output


def _spoilt(kind: str, sound: Path, output: Path) -> Path:
    name = "fc.bias"
    if kind == "another base":
        return _changed(sound, output, base_version="0123456789abcdef")
    if kind == "no base":
        return _changed(sound, output, base_version="")
    if kind == "not finite":
        return _changed(sound, output, tensors={name: np.full(10, np.nan, np.float32)})
    if kind == "another shape":
        return _changed(sound, output, tensors={name: np.zeros(9, np.float32)})
    if kind == "too far":
        return _changed(sound, output, tensors={name: np.full(10, 1e9, np.float32)})
    if kind == "another program":
        return _changed(sound, output, program="eval-block1")
    if kind == "stopped early":
        return _changed(sound, output, stopped_early=True, examples_done=4)
    if kind == "twice":
        output.write_bytes(sound.read_bytes())
        return output
    output.write_bytes(b"PK\x03\x04 no update")
    return output


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("another base", "started from weights 0123456789abcdef, not "),
        ("no base", "does not say which weights it started from"),
        ("not finite", "tensor fc.bias is not finite"),
        ("another shape", "tensor fc.bias has shape"),
        ("too far", "moved by"),
        ("another program", "trained eval-block1, which is not a training program of the bundle"),
        ("stopped early", "stopped early, and how many steps it was asked for is not known"),
        ("twice", "is the same update as "),
        ("no update", "its header claims"),
    ],
)
def test_a_rejected_update_is_named_with_its_reason_and_refuses_the_merge(
    kind: str, reason: str, folder: Path, train: Train, tmp_path: Path
) -> None:
    sound, output = train("a", 1), tmp_path / "out.safetensors"
    bad = _spoilt(kind, sound, tmp_path / "bad.safetensors")
    with pytest.raises(ExecutionError, match=r"1 of 2 updates are rejected .*--skip-rejected") as error:
        _merge(folder, sound, bad, "-o", output)
    assert str(bad) in str(error.value) and reason in str(error.value) and "\n" not in str(error.value)
    assert not output.exists()
    done = _server("merge", folder / "bundle", sound, bad, "-o", output, "--skip-rejected", "--json")
    assert f"rejected {bad}: " in done.stderr and reason in done.stderr
    report = json.loads(done.stdout)
    assert list(report["rejected"]) == [str(bad)] and len(report["updates"]) == 1
    for name, tensor in load_file(sound).items():
        np.testing.assert_array_equal(load_file(output)[name], tensor)


def test_a_file_that_is_given_twice_counts_once(folder: Path, train: Train, tmp_path: Path) -> None:
    sound = train("a", 1)
    report = _merge(folder, sound, sound, "-o", tmp_path / "out.safetensors", "--skip-rejected")
    assert report["rejected"] == {f"{sound} (given again)": "is the same update"}
    assert [update["weight"] for update in report["updates"]] == [1.0]


def test_nothing_but_rejected_updates_is_an_error_with_skip_rejected_too(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    bad = _changed(train("a", 1), tmp_path / "bad.safetensors", base_version="other")
    with pytest.raises(ExecutionError, match="no update remains to merge"):
        _merge(folder, bad, "-o", tmp_path / "out.safetensors", "--skip-rejected")
    report = _merge(folder, bad, "-o", tmp_path / "out.safetensors", "--base-version", "other")
    assert report["base_version"] == "other" and len(report["updates"]) == 1


def test_who_stopped_early_counts_by_what_it_did_of_the_steps_that_were_asked_for(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    early = _changed(train("a", 1), tmp_path / "early.safetensors", stopped_early=True, examples_done=4)
    report = _merge(folder, early, train("b", 1), "--steps", 2, "-o", tmp_path / "out.safetensors")
    assert [update["weight"] for update in report["updates"]] == [pytest.approx(4 / 28), pytest.approx(24 / 28)]


def test_an_update_of_another_bundle_is_refused(folder: Path, train: Train, tmp_path: Path) -> None:
    export_bundle("cnn", tmp_path / "other", width=4, batch=4, input_shape=SHAPE, seed=1, verify=False)
    with pytest.raises(ExecutionError, match="started from weights"):
        _server("merge", tmp_path / "other", train("a", 1), "-o", tmp_path / "out.safetensors")


@pytest.mark.parametrize("command", ["merge", "finish"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("prefix", "its names begin with 'model.', the model's do not; remove it with: python -c "),
        ("pickle", "is a file of torch.save .*; convert it with: python -c "),
        ("half", "is float16; weights are float32: convert them with: python -c "),
        ("missing", "No such file"),
    ],
)
def test_weights_that_do_not_match_are_refused_with_the_line_that_mends_them(
    command: str, kind: str, expected: str, folder: Path, train: Train, tmp_path: Path
) -> None:
    initial = load_torch(folder / "bundle/weights/initial.safetensors")
    state = {name: tensor for name, tensor in initial.items() if not name.startswith("output_module")}
    path = tmp_path / ("w.pt" if kind == "pickle" else "w.safetensors")
    from safetensors.torch import save_file as save_torch

    if kind == "prefix":
        save_torch({f"model.{name}": tensor for name, tensor in state.items()}, path)
    elif kind == "pickle":
        torch.save({"state_dict": state}, path)
    elif kind == "half":
        save_torch({name: t.half() if t.is_floating_point() else t for name, t in state.items()}, path)
    updates = [train("a", 1)] if command == "merge" else []
    with pytest.raises(FormatError, match=rf"--weights {path}: .*{expected}") as error:
        _server(command, folder / "bundle", *updates, "--weights", path, "-o", tmp_path / "out.safetensors")
    assert "\n" not in str(error.value)
    if kind == "missing":
        return
    (line,) = shlex.split(str(error.value).partition("python -c ")[2])
    exec(line, {})  # what the error says mends it
    (mended,) = (made for made in tmp_path.glob("*.safetensors") if made != path)
    laid = lay_weights(open_bundle(folder / "bundle"), [mended])
    for name, tensor in state.items():
        torch.testing.assert_close(torch.from_numpy(laid.tensors[name]), tensor, rtol=1e-3, atol=1e-3)


def test_the_lines_of_the_docs_load_the_finished_model(
    folder: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    update = train("a", 1)
    _server("finish", folder / "bundle", "--weights", update, "--initial-blocks", "-o", tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code, scope)  # what readers copy
    trained = load_torch(update)
    own = [name for name in trained if name in scope["model"].state_dict()]
    assert own
    for name in own:
        torch.testing.assert_close(scope["model"].state_dict()[name], trained[name], rtol=0, atol=0)
