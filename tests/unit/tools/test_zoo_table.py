"""tools/zoo: its list, its results, its table, and one model."""

from __future__ import annotations

import re
import sys
from multiprocessing import Pipe
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from torch import nn  # noqa: E402

from device_profiles.errors import FormatError  # noqa: E402
from tools.zoo import one, table  # noqa: E402
from tools.zoo.__main__ import main  # noqa: E402
from tools.zoo.entries import LIST, OTHERS, Entry, Result, entries_in, keep_results, known_results  # noqa: E402
from tools.zoo.made import made  # noqa: E402

GOOD = Result(name="good", input_shape=(3, 8, 8), seconds=1.25, arena_bytes=3 << 20, loss_difference=2e-7)
BAD = Result(name="bad", input_shape=(3, 8, 8), refusal="module 'a': operator a | b " + "is not covered " * 20)


def test_every_line_of_the_list_is_a_model_of_its_own() -> None:
    entries = entries_in(LIST)
    names = [entry.name for entry in entries]
    assert len(entries) >= 87 and len(set(names)) == len(names)
    assert names == sorted(names)
    (swin,) = entries_in(LIST, only="swin_*")
    assert swin.input_shape == (3, 64, 64) and swin.arguments == {"img_size": 64, "window_size": 4}


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# models\n\nresnet18 3x64\nvit 3xa\n")
    with pytest.raises(FormatError, match=r"list.txt, line 4: write NAME CxHxW"):
        entries_in(path)


def test_a_table_has_models_of_several_packages_and_what_they_share() -> None:
    entries = {entry.name: entry for entry in entries_in(OTHERS)}
    assert len(entries) >= 60 and {entry.package for entry in entries.values()} == {"transformers", "torchvision"}
    albert = entries["transformers.AlbertForSequenceClassification"]
    assert (albert.input_shape, albert.input_dtype, albert.classes, albert.output) == ((12,), "int64", 4, "logits")
    assert albert.arguments["hidden_size"] == 24 and albert.arguments["embedding_size"] == 16
    assert "embedding_size" not in entries["transformers.BertForSequenceClassification"].arguments


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[p]\nm = { like = 'a' }", "p.m is like 'a', which is none of b"),
        ("[p]\nm = { classes = 3 }", "p.m: Object missing required field `input_shape`"),
        ("[p]\nm = { input_shape = [3], width = 4 }", "p.m: Object contains unknown field `width`"),
        ("[p]\nm = 3", "list.toml: Expected `object`, got `int`"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_the_name_of_the_model(
    text: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.toml"
    path.write_text(f"[like.b]\n{text}\n")
    with pytest.raises(FormatError, match=re.escape(reason)):
        entries_in(path)


def test_results_are_kept_and_shown_without_an_export(tmp_path: Path) -> None:
    path, models = tmp_path / "zoo.json", tmp_path / "list.txt"
    assert known_results(path) == {}
    keep_results(path, {"good": GOOD, "bad": BAD})
    assert known_results(path) == {"good": GOOD, "bad": BAD}
    models.write_text("good 3x8x8\nother 3x8x8\nbad 3x8x8\n")
    shown = CliRunner().invoke(main, ["--list", str(models), "--results", str(path), "--known"])
    assert shown.exit_code == 0
    assert shown.output == table.table([GOOD, BAD])


def test_the_table_says_how_many_are_exported_and_why_others_are_not() -> None:
    lines = table.table([GOOD, BAD]).splitlines()
    assert lines[0] == "1 of 2 models are exported (50%)."
    assert lines[4] == "| `good` | 3x8x8 | 1.2 | 3.0 | 2e-07 | |"
    assert lines[5].startswith("| `bad` | 3x8x8 | | | | module 'a': operator a \\| b is not") and len(lines[5]) < 200


def test_the_table_replaces_the_one_in_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "models.md"
    begin, end = table.BEGIN.format("others"), table.END.format("others")
    document.write_text(f"before\n{begin}old\n{end}behind\n")
    monkeypatch.setattr(table, "DOCUMENT", document)
    table.write_document("others", [GOOD])
    assert document.read_text() == f"before\n{begin}{table.table([GOOD])}{end}behind\n"
    with pytest.raises(FormatError, match=r"models.md has no place .* <!-- models: made by tools/zoo -->"):
        table.write_document("models", [GOOD])


def test_the_document_has_a_place_for_every_list() -> None:
    text = table.DOCUMENT.read_text(encoding="utf-8")
    for path in (LIST, OTHERS):
        assert table.BEGIN.format(path.stem) in text and table.END.format(path.stem) in text


def _create_model(name: str, *, pretrained: bool, num_classes: int, width: int = 4) -> nn.Module:
    assert not pretrained
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes + (name == "wrong"))]
    return nn.Sequential(*layers, *end)


@pytest.mark.parametrize("name", ["right", "wrong"])
def test_a_model_is_exported_and_held_against_pytorch_or_its_refusal_kept(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = ModuleType("package_of_models")
    package.create_model = _create_model  # type: ignore[attr-defined]  # a module has what it is given
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(one, "_chosen", [])
    threads = torch.get_num_threads()
    receives, sends = Pipe(duplex=False)
    entry = Entry(name=name, package=package.__name__, input_shape=(3, 8, 8), arguments={"width": 5})
    one.export_one(entry, 2, sends)
    torch.set_num_threads(threads)
    result = receives.recv()
    assert (result.name, result.input_shape) == (name, (3, 8, 8))
    if name == "wrong":
        assert "returns 11 for an example, not 10 logits" in result.refusal and result.arena_bytes == 0
    else:
        assert result.refusal == "" and result.arena_bytes > 0 and result.loss_difference < 1e-5


class _Config:
    def __init__(self, *, num_labels: int, width: int) -> None:
        self.num_labels, self.width = num_labels, width


class _Named(nn.Module):
    config_class = _Config

    def __init__(self, config: _Config) -> None:
        super().__init__()
        self.linear = nn.Linear(config.width, config.num_labels)

    def forward(self, other: int = 0, values: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        assert other == 0 and values is not None
        return {"logits": self.linear(values)}


def test_a_package_without_a_factory_has_classes_that_take_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("package_of_classes")
    package.Named = _Named  # type: ignore[attr-defined]  # a module has what it is given
    monkeypatch.setitem(sys.modules, package.__name__, package)
    entry = Entry(
        name="package_of_classes.Named",
        package=package.__name__,
        input_shape=(5,),
        classes=3,
        arguments={"width": 5},
        argument="values",
        output="logits",
    )
    assert made(entry)(torch.zeros(2, 5)).shape == (2, 3)
