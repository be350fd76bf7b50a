"""The exporter's own check finds faults that are planted in it, and names where they begin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from device_profiles.errors import ExecutionError, UsageError  # noqa: E402
from edge_runtime.device.cli import main as profl_edge  # noqa: E402
from edge_runtime.export.capture import own_gradients  # noqa: E402
from edge_runtime.export.operators import CAPTURES, EMITTERS  # noqa: E402
from edge_runtime.export.plan import block_model  # noqa: E402
from edge_runtime.export.targets.native import create_model, export_bundle  # noqa: E402
from edge_runtime.export.verify import verify as verification  # noqa: E402
from edge_runtime.export.verify.reference import at_random_weights, trained_step  # noqa: E402

CNN = {"width": 4, "batch": 4, "input_shape": (3, 16, 16), "blocks": 1}


def _without_term(emit: Callable[..., Any]) -> Callable[..., Any]:
    """An emitter whose gradient rule forgets all but the last of its pairs."""

    def emitted(builder: Any, layer: Any, values: Any) -> Any:
        record = type(builder).record

        def forgetful(self: Any, output: Any, rule: Any) -> Any:
            return record(self, output, lambda gradient: rule(gradient)[1:])

        type(builder).record = forgetful
        try:
            return emit(builder, layer, values)
        finally:
            type(builder).record = record

    return emitted


def _changed(capture: Callable[..., Any], **attributes: Any) -> Callable[..., Any]:
    def captured(call: Any) -> Any:
        layer = capture(call)
        return dataclasses.replace(layer, attributes={**layer.attributes, **attributes})

    return captured


def _refused(model: str, folder: Path, **options: Any) -> str:
    with pytest.raises(UsageError, match=r"^verification: ") as raised:
        export_bundle(model, folder / "bundle", **options)
    assert "\n" not in str(raised.value) and list(folder.iterdir()) == []
    return str(raised.value)


def test_a_forgotten_gradient_is_found_between_the_layers_where_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMITTERS, "max_pool2d", _without_term(EMITTERS["max_pool2d"]))
    said = _refused("tests.support.models:lenet", tmp_path, batch=4, input_shape=(1, 28, 28), blocks=1)
    assert "the gradient of '" in said and "between modules '" in said


def test_another_slope_is_found_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CAPTURES, "leaky_relu", _changed(CAPTURES["leaky_relu"], parameter=0.3))
    said = _refused("tests.support.zoo:leaky", tmp_path, batch=4, input_shape=(3, 8, 8), blocks=1)
    assert "module 'act' differs from PyTorch in training" in said


def test_another_momentum_of_statistics_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CAPTURES, "batch_norm", _changed(CAPTURES["batch_norm"], momentum=0.3))
    assert "running_" in _refused("cnn", tmp_path, **CNN)


def test_a_lost_function_is_found_by_the_gradient_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_gradients, "_differentiates", lambda function, arguments: True)
    said = _refused("tests.support.zoo:reverse", tmp_path, batch=4, input_shape=(3, 8, 8), blocks=1)
    assert "the gradient of 'a." in said and "differs from PyTorch's by 2 of it, between modules 'a' and 'fc'" in said


def test_what_no_one_expected_is_one_line_with_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise KeyError("input")

    monkeypatch.setitem(EMITTERS, "conv2d", broken)
    with pytest.raises(ExecutionError, match=r"^module '[\w.]+': the program of its conv2d .*fault of the exporter"):
        export_bundle("cnn", tmp_path / "bundle", **CNN)
    monkeypatch.undo()
    monkeypatch.setitem(CAPTURES, "conv2d", broken)
    with pytest.raises(ExecutionError, match=r"operator aten.conv2d.default could not be captured .*fault of the"):
        export_bundle("cnn", tmp_path / "bundle", **CNN)


def test_the_option_leaves_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CAPTURES, "batch_norm", _changed(CAPTURES["batch_norm"], momentum=0.3))
    arguments = ["export", "--model", "cnn", "--width", "4", "--batch", "4", "-o", str(tmp_path / "bundle")]
    assert profl_edge(arguments) == 2
    assert "--no-verify" in capsys.readouterr().err
    assert profl_edge([*arguments, "--no-verify"]) == 0


def test_the_module_is_left_as_it_was() -> None:
    module = create_model("cnn", width=4, classes=10, input_shape=(3, 16, 16))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    with at_random_weights(module, 1):
        assert not torch.equal(module.state_dict()["stage1.0.weight"], before["stage1.0.weight"])
        targets = torch.zeros(4, dtype=torch.int64)
        from device_profiles.manifest import Loss

        trained_step(module, torch.randn(4, 3, 16, 16), targets, Loss(), double=True)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def _captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch of every capture from here on."""
    batches: list[int] = []
    real = block_model.capture

    def capture(module: Any, *, batch: int, **options: Any) -> Any:
        batches.append(batch)
        return real(module, batch=batch, **options)

    monkeypatch.setattr(block_model, "capture", capture)
    return batches


def test_a_large_model_is_tried_with_fewer_examples_of_the_same_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_MOST_PRODUCTS", 1)
    batches = _captures(monkeypatch)
    export_bundle("cnn", tmp_path / "bundle", **CNN | {"batch": 8})
    tokens = {"input_shape": (12,), "classes": 9, "width": 8, "blocks": 1}
    export_bundle("text_transformer", tmp_path / "text", batch=8, **tokens)
    assert batches == [8, 8]


def test_forward_that_computes_with_the_number_of_its_examples_is_captured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_MOST_PRODUCTS", 1)
    batches = _captures(monkeypatch)
    export_bundle("tests.support.zoo:by_batch", tmp_path / "bundle", batch=8, input_shape=(3, 8, 8), blocks=1)
    assert batches == [8, 4]


def test_a_fault_is_found_with_fewer_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_MOST_PRODUCTS", 1)
    monkeypatch.setitem(CAPTURES, "batch_norm", _changed(CAPTURES["batch_norm"], momentum=0.3))
    assert "running_" in _refused("cnn", tmp_path, **CNN | {"batch": 8})
