"""A user's own model by its factory: what is shown of it, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.files import read_json  # noqa: E402
from device_profiles.manifest import Manifest  # noqa: E402
from edge_runtime.device.cli import main as profl_edge  # noqa: E402
from edge_runtime.export.commands.describe import description, lines  # noqa: E402
from edge_runtime.export.commands.model_options import parse_shape  # noqa: E402
from edge_runtime.export.cut.tied import second_names  # noqa: E402
from edge_runtime.export.models.factory import create_model, find_models_in  # noqa: E402
from edge_runtime.export.plan.block_model import BlockModel  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402

ODD = "tests.support.odd_models"
SENSOR = "tests.support.models:sensor_cnn"


def _described(model: str, shape: tuple[int, ...]) -> dict[str, object]:
    module = create_model(model, width=None, classes=10, input_shape=shape)
    return description(BlockModel.of(module, name=model, batch=2, input_shape=shape, classes=10))


def test_the_units_of_a_model_and_where_it_cannot_be_cut_are_shown() -> None:
    described = _described("tests.support.models:inception", (3, 32, 32))
    assert [unit["name"] for unit in described["units"]] == ["0", "1", "2", "3"]
    assert described["units"][0] == {
        "name": "0",
        "input_shape": (3, 32, 32),
        "output_shape": (8, 16, 16),
        "parameter_bytes": 4 * (3 * 8 * 9 + 8 + 8 + 8),
    }
    assert described["head"]["modules"] == ["4.0"]
    assert {reason["unit"] for reason in described["uncut"]} == {1, 3}
    shown = lines(described)
    assert "  unit 1: 5 layers, 1.one to 1.mean.1; at best 0.1 (8x16x16) and 1.one (4x16x16)" in shown
    assert not any("Not cut" in line for line in lines(_described("tests.support.models:lenet", (1, 28, 28))))


def test_the_units_of_a_model_of_tokens_are_shown_with_its_input_dtype(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["models", "--model", "tests.support.token_models:text", "--input", "12", "--classes", "4"]
    assert profl_edge([*arguments, "--input-dtype", "int64"]) == 0
    assert "tests.support.token_models:text: input 12, 4 classes, " in capsys.readouterr().out
    assert profl_edge(arguments) == 2
    assert "'indices'" in (errors := capsys.readouterr().err)
    assert errors.endswith("; a model of tokens requires --input-dtype int64\n") and errors.count("\n") == 1


@pytest.mark.parametrize("target", ["native", "executorch"])
def test_parameters_that_the_user_froze_keep_their_values_with_a_note_that_names_them(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("executorch", reason="programs are written with it")
    arguments = ["export", "--model", "tests.support.odd_models:partly_frozen", "--input", "8", "--classes", "4"]
    arguments += ["--batch", "2", "--blocks", "1", "--target", target]
    assert profl_edge([*arguments, "-o", str(tmp_path / "bundle")]) == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        "note: 4 parameters with requires_grad=False keep their values: 0.weight, 0.bias, 2.weight and 1 more"
    )
    if target == "native":
        manifest = read_json(tmp_path / "bundle" / "manifest.json", Manifest)
        trained = {tensor.name for tensor in manifest.program("grow-block1").tensors if tensor.role == "parameter"}
        assert trained == {"4.weight", "4.bias"}


@pytest.mark.parametrize(("text", "shape"), [("3x32x32", (3, 32, 32)), ("6X128", (6, 128)), ("16", (16,))])
def test_inputs_of_any_rank(text: str, shape: tuple[int, ...]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "6x", "6x0", "-1", "axb", "3,32,32"])
def test_an_input_that_is_no_shape_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=f"--input {text}"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": "tests.support.token_models:nothing"}, "token_models.py has no 'nothing'"),
        ({"model": "json:loads"}, "--model json:loads: the factory needs arguments (s)"),
        ({"model": "types:SimpleNamespace"}, "returned SimpleNamespace, not a torch.nn.Module"),
        ({"model": SENSOR, "width": 8}, "--width: is for built-in models only"),
        ({"model": "resnet18", "input_shape": (6, 128)}, "--model resnet18: takes images; write --input as channels"),
        ({"model": "cnn1d"}, "takes channels over time; write --input as channels x time, such as 6x128"),
        ({"model": "text_transformer"}, "takes texts; write --input as the number of tokens, such as 64"),
        ({"model": SENSOR, "input_shape": (6, 128), "classes": 5}, "not 5 logits; correct --classes"),
        (
            {"model": SENSOR, "input_shape": (6, 128), "classes": 6, "head": "nowhere"},
            "--head nowhere: no module of this name",
        ),
        ({"model": SENSOR, "input_shape": (7, 128)}, "torch.export cannot trace the model for --input 7x128"),
        (
            {"model": f"{ODD}:cumulative_average", "input_shape": (8,), "classes": 4},
            "module '1': BatchNorm1d with momentum=None, the average of all batches so far, is not trained by",
        ),
        (
            {"model": f"{ODD}:deciding", "input_shape": (8,), "classes": 4},
            "odd_models.py; write forward so that no value of a tensor decides what is run",
        ),
        (
            {"model": f"{ODD}:multiplying", "input_shape": (8,), "classes": 4},
            "aten.lgamma.default (line 196 of odd_models.py) has no training kernel in this runtime (it is made of",
        ),
        (
            {"model": "cnn", "partition": "0-1"},
            "--partition 0-1: covers 2 units, the model has 3; give units 0 to 2",
        ),
    ],
    ids=range(14),
)
def test_what_cannot_be_exported_is_one_line_that_names_the_option(
    options: dict[str, object], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as raised:
        export_bundle(output=tmp_path / "bundle", **options)  # type: ignore[arg-type]  # parametrised
    assert named in str(raised.value) and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


FACTORIES = """
import sys
from torch import nn
NUMBER = 3
def with_arguments(classes, width=4): ...
def broken(): raise ValueError("no weights\\nof the backbone")
def ends(): sys.exit(4)
def no_model(): return 3
class Net(nn.Sequential):
    def __init__(self, layers=1):
        super().__init__(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    @staticmethod
    def made(): return Net()
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `factories` in the working directory, and one beside it that cannot be imported."""
    (tmp_path / "factories.py").write_text(FACTORIES)
    (tmp_path / "unfinished.py").write_text("import not_installed_here\n")
    (tmp_path / "wrong.py").write_text("def make(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for name in ("factories", "unfinished", "wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("factories:with_arguments", "the factory needs arguments (classes); name a function without any"),
        ("factories:broken", "the factory raised ValueError: no weights of the backbone"),
        ("factories:ends", "the factory raised SystemExit: 4"),
        ("factories:no_model", "the factory returned int, not a torch.nn.Module"),
        ("factories:absent", "factories.py has no 'absent'"),
        ("factories:Net.absent", "factories.py has no 'Net.absent'"),
        ("factories:NUMBER", "'NUMBER' is a int; name a function that makes a model"),
        ("factories:", "write package.module:factory"),
        (":made", "write package.module:factory"),
        ("not_there.at_all:make", "there is no module 'not_there' in "),
        ("factories.below:make", "there is no module 'factories.below' in "),
        ("unfinished:make", "importing unfinished raised ModuleNotFoundError: No module named 'not_installed_here'"),
        ("wrong:make", "importing wrong raised SyntaxError: "),
    ],
)
def test_a_factory_that_makes_no_model_is_one_line(model: str, expected: str, factories: None) -> None:
    with pytest.raises(UsageError) as error:
        create_model(model, width=None, classes=3, input_shape=(5,))
    assert str(error.value).startswith(f"--model {model}: ") and expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["factories:Net", "factories:Net.made"])
def test_anything_that_makes_a_module_without_arguments_is_a_factory(model: str, factories: None) -> None:
    assert len(create_model(model, width=None, classes=3, input_shape=(5,)).state_dict()) == 4


def test_a_module_is_also_found_in_a_folder_that_was_named(
    factories: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="there is no module 'factories'"):
        create_model("factories:Net", width=None, classes=3, input_shape=(5,))
    find_models_in(tmp_path)
    assert create_model("factories:Net", width=None, classes=3, input_shape=(5,)) is not None


def test_second_names_of_a_tensor_are_those_that_no_layer_uses() -> None:
    shared, other = torch.zeros(2, 3), torch.zeros(2, 3)
    state = {"a.weight": shared, "b.weight": other, "z.0.weight": shared, "z.1.weight": shared.view(3, 2)}
    assert second_names(state, used=["z.0.weight", "b.weight"]) == {"a.weight": "z.0.weight"}
    assert second_names(state, used=[]) == {"z.0.weight": "a.weight"}
