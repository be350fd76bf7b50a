"""Weights that a model starts from: what matches, what is missing, what is left out, and another number of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models are PyTorch's")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from device_profiles.errors import FormatError  # noqa: E402
from edge_runtime.export.models.pretrained import classifier_of, load_pretrained  # noqa: E402


def _net(classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


def _saved(path: Path, state: dict[str, Any]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_every_tensor_is_taken_by_its_name(tmp_path: Path, name: str) -> None:
    given, model = _net(seed=1), _net(seed=2)
    loaded = load_pretrained(model, _saved(tmp_path / name, given.state_dict()), classes=3)
    assert all(torch.equal(value, given.state_dict()[key]) for key, value in model.state_dict().items())
    assert loaded.lines(tmp_path / name) == [f"{tmp_path / name}: 9 tensors of the model are in the file"]


def test_another_number_of_classes_keeps_the_fresh_head(tmp_path: Path) -> None:
    given, model = _net(1000, seed=1), _net(seed=2)
    fresh = model[3].weight.clone()  # type: ignore[index,union-attr,operator]
    loaded = load_pretrained(model, _saved(tmp_path / "w.pt", given.state_dict()), classes=3)
    assert loaded.replaced == ("3.weight", "3.bias") and len(loaded.matched) == 7
    assert torch.equal(model.state_dict()["3.weight"], fresh)
    assert torch.equal(model.state_dict()["0.weight"], given.state_dict()["0.weight"])
    assert "for another number of classes, kept fresh: 3.weight, 3.bias" in loaded.lines(tmp_path)


def test_what_is_missing_and_what_is_not_the_models_is_named(tmp_path: Path) -> None:
    state = _net(seed=1).state_dict()
    del state["0.bias"]
    state |= {f"extra{number}": torch.zeros(1) for number in range(4)}
    loaded = load_pretrained(_net(), _saved(tmp_path / "w.safetensors", state), classes=3)
    assert loaded.lines(tmp_path / "f")[1:] == [
        "not in the file, kept fresh: 0.bias",
        "not in the model, left out: extra0, extra1, extra2 and 1 more",
    ]


def test_checkpoints_of_training_scripts_and_prefixes_of_wrappers_are_seen_through(tmp_path: Path) -> None:
    given, model = _net(seed=1), _net(seed=2)
    state = {f"module.net.{name}": value.half() if value.is_floating_point() else value
             for name, value in given.state_dict().items()}  # fmt: skip
    path = _saved(tmp_path / "w.pt", {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}})
    loaded = load_pretrained(model, path, classes=3)
    assert loaded.prefix == "module.net." and len(loaded.matched) == 9
    assert torch.equal(model.state_dict()["0.weight"], given.state_dict()["0.weight"].half().float())


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"0.weight": torch.zeros(5, 4)}, r"tensor '0\.weight' is \[5, 4\], the model's is \[8, 4\]; give the file of"),
        ({"3.weight": torch.zeros(3, 9)}, r"tensor '3\.weight' is \[3, 9\]"),
        ({"a": torch.zeros(1)}, r"has no tensor of the model; the file has a; the model has 0\.weight, 0\.bias"),
        ({"0.weight": torch.full((8, 4), float("nan"))}, "has values that are not finite"),
        ({"0.weight": torch.zeros(8, 4, dtype=torch.int64)}, "is int64, the model's is float32"),
        ({"0.weight": _Code()}, "is not a file of weights alone"),
        ([1, 2], "holds a list, not a state_dict"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, state: Any, match: str, capfd: Any) -> None:
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(FormatError, match=match) as caught:
        load_pretrained(_net(), tmp_path / "w.pt", classes=3)
    assert "\n" not in str(caught.value) and capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_that_is_missing_or_none_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match=name):
        load_pretrained(_net(), tmp_path / name, classes=3)
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match=name):
        load_pretrained(_net(), tmp_path / name, classes=3)


def test_the_classifier_is_the_last_module_with_a_row_for_each_class() -> None:
    assert classifier_of(_net(), 3) == "3"
    assert classifier_of(_net(8), 8) == "3"
    assert classifier_of(_net(), 5) is None
