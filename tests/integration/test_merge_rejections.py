"""Updates and weights that `profl-server merge` and `finish` refuse, each in a line that says what mends it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the bundle is exported with torch")
pytest.importorskip("executorch", reason="the bundle is written with it")

import msgspec  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from safetensors.torch import load_file as load_torch  # noqa: E402

from device_profiles.errors import ExecutionError, FormatError  # noqa: E402
from device_profiles.update import UpdateMetadata  # noqa: E402
from edge_runtime.device.prepare.bundle import open_bundle  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from server.finished.weight_layers import lay_weights  # noqa: E402
from tests.support.merging import SHAPE, Train, merge, prepared, server, trainer  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("merge"))


@pytest.fixture(scope="module")
def train(folder: Path) -> Train:
    return trainer(folder)


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
        merge(folder, sound, bad, "-o", output)
    assert str(bad) in str(error.value) and reason in str(error.value) and "\n" not in str(error.value)
    assert not output.exists()
    done = server("merge", folder / "bundle", sound, bad, "-o", output, "--skip-rejected", "--json")
    assert f"rejected {bad}: " in done.stderr and reason in done.stderr
    report = json.loads(done.stdout)
    assert list(report["rejected"]) == [str(bad)] and len(report["updates"]) == 1
    for name, tensor in load_file(sound).items():
        np.testing.assert_array_equal(load_file(output)[name], tensor)


def test_a_file_that_is_given_twice_counts_once(folder: Path, train: Train, tmp_path: Path) -> None:
    sound = train("a", 1)
    report = merge(folder, sound, sound, "-o", tmp_path / "out.safetensors", "--skip-rejected")
    assert report["rejected"] == {f"{sound} (given again)": "is the same update"}
    assert [update["weight"] for update in report["updates"]] == [1.0]


def test_nothing_but_rejected_updates_is_an_error_with_skip_rejected_too(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    bad = _changed(train("a", 1), tmp_path / "bad.safetensors", base_version="other")
    with pytest.raises(ExecutionError, match="no update remains to merge"):
        merge(folder, bad, "-o", tmp_path / "out.safetensors", "--skip-rejected")
    report = merge(folder, bad, "-o", tmp_path / "out.safetensors", "--base-version", "other")
    assert report["base_version"] == "other" and len(report["updates"]) == 1


def test_who_stopped_early_counts_by_what_it_did_of_the_steps_that_were_asked_for(
    folder: Path, train: Train, tmp_path: Path
) -> None:
    early = _changed(train("a", 1), tmp_path / "early.safetensors", stopped_early=True, examples_done=4)
    report = merge(folder, early, train("b", 1), "--steps", 2, "-o", tmp_path / "out.safetensors")
    assert [update["weight"] for update in report["updates"]] == [pytest.approx(4 / 28), pytest.approx(24 / 28)]


def test_an_update_of_another_bundle_is_refused(folder: Path, train: Train, tmp_path: Path) -> None:
    export_bundle("cnn", tmp_path / "other", width=4, batch=4, input_shape=SHAPE, seed=1, verify=False)
    with pytest.raises(ExecutionError, match="started from weights"):
        server("merge", tmp_path / "other", train("a", 1), "-o", tmp_path / "out.safetensors")


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
        server(command, folder / "bundle", *updates, "--weights", path, "-o", tmp_path / "out.safetensors")
    assert "\n" not in str(error.value)
    if kind == "missing":
        return
    (line,) = shlex.split(str(error.value).partition("python -c ")[2])
    exec(line, {})  # what the error says mends it
    (mended,) = (made for made in tmp_path.glob("*.safetensors") if made != path)
    laid = lay_weights(open_bundle(folder / "bundle"), [mended])
    for name, tensor in state.items():
        torch.testing.assert_close(torch.from_numpy(laid.tensors[name]), tensor, rtol=1e-3, atol=1e-3)
