"""`profl-edge export --target onnx|executorch`: what is written, and what is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from device_profiles.errors import FormatError, UsageError
from edge_runtime.export import models
from edge_runtime.export.commands.export import export
from edge_runtime.export.models.factory import create_model

MODEL = ["--model", "resnet18", "--width", "4"]


def _export(*arguments: object) -> Result:
    return CliRunner().invoke(export, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as a finished run leaves them: nothing has its initial value."""
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    torch.manual_seed(5)
    state = models.create("resnet18", width=4).state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = tensor + 0.1 * torch.rand_like(tensor)
    save_file(state, path)
    return path


def test_onnx_computes_what_pytorch_computes_for_any_batch(trained: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime checks the ONNX file")
    output = tmp_path / "model.onnx"
    done = _export(*MODEL, "--target", "onnx", "--weights", trained, "-o", output, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"model": str(output)}
    module = models.create("resnet18", width=4).eval()
    module.load_state_dict(load_file(trained))
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 32)
        (logits,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), module(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "classes"),
    [
        ("text_transformer", ("--width", 16, "--classes", 9), 9),
        ("tests.support.token_models:text", ("--classes", 4, "--input-dtype", "int64"), 4),
    ],
    ids=["built in", "own"],
)
def test_onnx_of_a_model_of_tokens_takes_tokens(
    model: str, options: tuple[object, ...], classes: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime checks the ONNX file")
    output = tmp_path / "model.onnx"
    done = _export("--model", model, *options, "--input", 12, "--target", "onnx", "-o", output, "--seed", 3)
    assert (done.output, *capfd.readouterr()) == (f"wrote {output}\n", "", "")
    torch.manual_seed(3)
    width = 16 if model in models.BUILT_IN else None
    module = create_model(model, width=width, classes=classes, input_shape=(12,)).eval()
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        tokens = torch.randint(0, classes, (batch, 12))
        (logits,) = session.run(None, {"tokens": tokens.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), module(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["onnx", "executorch"])
def test_what_torchs_exporters_do_not_take_is_one_line(target: str, tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="programs are written with it")
    model = ("--model", "tests.support.token_models:text", "--input", 12, "--classes", 4)
    with pytest.raises(UsageError) as error:
        _export(*model, "--target", target, "-o", tmp_path / "out")
    assert "for --input 12: Expected tensor for argument #1 'indices'" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_half_a_model_is_not_exported_for_inference(trained: Path, tmp_path: Path) -> None:
    state = load_file(trained)
    del state["layer3.0.conv1.weight"]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(FormatError, match=r"half\.safetensors: tensor 'layer3\.0\.conv1\.weight' is missing"):
        _export(*MODEL, "--target", "onnx", "--weights", tmp_path / "half.safetensors", "-o", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_weights_of_another_width_are_refused_by_name(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"tensor 'bn1\.bias' is float32 \[4\], expected float32 \[8\]"):
        _export(
            "--model", "resnet18", "--width", 8, "--target", "onnx", "--weights", trained, "-o", tmp_path / "m.onnx"
        )


def _mended(error: FormatError, folder: Path) -> dict[str, torch.Tensor]:
    """What the line of Python in an error makes of the file."""
    before = set(folder.iterdir())
    (line,) = shlex.split(str(error).partition("python -c ")[2])
    exec(line, {})
    (made,) = set(folder.iterdir()) - before
    return load_file(made)


@pytest.mark.parametrize("kind", ["prefix", "no prefix", "pickle"])
def test_weights_that_match_with_a_line_of_python_are_refused_with_it(kind: str, trained: Path, tmp_path: Path) -> None:
    state, path, model = load_file(trained), tmp_path / "saved.safetensors", MODEL
    if kind == "prefix":
        save_file({f"model.{name}": tensor for name, tensor in state.items()}, path)
        expected = "its names begin with 'model.', the model's do not; remove it with: "
    elif kind == "pickle":
        torch.save({"state_dict": state, "epoch": 3}, path := tmp_path / "saved.pt")
        expected = "is a file of torch.save .* not safetensors; convert it with: "
    else:
        state = create_model("tests.support.models:wrapped", width=None, classes=10, input_shape=(3, 8, 8)).state_dict()
        save_file({name.removeprefix("inner."): tensor for name, tensor in state.items()}, path)
        model, expected = (
            ["--model", "tests.support.models:wrapped", "--input", "3x8x8"],
            "its names lack the 'inner.' that the model's begin with; add it with: ",
        )
    with pytest.raises(FormatError, match=expected) as error:
        _export(*model, "--target", "onnx", "--weights", path, "-o", tmp_path / "m.onnx")
    assert "\n" not in str(error.value) and not (tmp_path / "m.onnx").exists()
    mended = _mended(error.value, tmp_path)
    assert set(mended) == set(state)
    assert all(torch.equal(mended[name], tensor) for name, tensor in state.items())


def test_a_tensor_that_the_model_does_not_have_is_not_left_out_in_silence(trained: Path, tmp_path: Path) -> None:
    save_file({**load_file(trained), "auxiliary.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match=r"w\.safetensors: tensor 'auxiliary\.weight' is not a tensor of the model"):
        _export(*MODEL, "--target", "onnx", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [None, b"not safetensors"])
def test_a_file_that_holds_no_tensors_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"w\.safetensors: ") as error:
        _export(*MODEL, "--target", "onnx", "--weights", path, "-o", tmp_path / "m.onnx")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("target", "option", "value"),
    [
        ("onnx", "--blocks", "2"),
        ("onnx", "--batch", "8"),
        ("onnx", "--momentum", "0.5"),
        ("executorch", "--recompute", "1MB"),
    ],
)
def test_an_option_of_another_target_is_refused_by_its_name(
    target: str, option: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"{option} cannot be combined with --target {target}"):
        _export(*MODEL, "--target", target, option, value, "-o", tmp_path / "out")


def test_a_bundle_takes_no_trained_weights(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--weights: .*profl-edge train --weights"):
        _export(*MODEL, "--weights", trained, "-o", tmp_path / "bundle")


def test_a_folder_with_other_things_is_never_replaced_by_programs(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="programs are written with it")
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="choose another folder"):
        _export(*MODEL, "--target", "executorch", "-o", tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"
