"""The measurement of the whole network: what fails in a process is said, and ends nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from device_profiles.errors import ExecutionError, UsageError
from server.fleet.model import ModelSettings
from server.planner import whole_network
from server.planner.whole_network import WholeNetwork, measure_whole_network
from server.rounds.summary_table import unmeasured

SETTINGS = ModelSettings(name="cnn", width=4, batch=4, input_shape=(3, 8, 8))


def _peak(code: str) -> int:
    return whole_network._peak([sys.executable, "-c", code], None)


def test_the_peak_is_what_the_process_says() -> None:
    assert _peak("print('{\"measured_peak_bytes\": 12}')") == 12


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; print('first', file=sys.stderr); sys.exit('last words')", "last words"),
        ("raise ValueError('of no use')", "ValueError: of no use"),
        ("import os; os._exit(3)", "its process ended with status 3"),
        ("import os; os.kill(os.getpid(), 11)", "its process died by signal 11"),
        ("print('nothing')", "its process did not say how much memory it used"),
        ("print('[]')", "its process did not say how much memory it used"),
    ],
)
def test_a_process_that_fails_is_quoted(code: str, expected: str) -> None:
    with pytest.raises(ExecutionError) as error:
        _peak(code)
    assert str(error.value) == expected


def test_one_runtime_that_fails_leaves_the_other_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(command: list[str], limit_bytes: int | None) -> int:
        if "server.planner.pytorch_step" in command:
            raise ExecutionError("RuntimeError: no memory")
        if limit_bytes is not None and limit_bytes < 50:
            raise ExecutionError("killed")
        return 50

    monkeypatch.setattr(whole_network, "_peak", peak)
    measured = measure_whole_network(SETTINGS, lambda: Path("bundle"), {"a": 40, "b": 60, "c": 50}, threads=1)
    assert (measured.native_devices, measured.native_peak_bytes, measured.native_failure) == (2, 50, None)
    assert (measured.pytorch_devices, measured.pytorch_peak_bytes) == (None, None)
    assert unmeasured(measured) == [
        "the whole network could not be trained at once with PyTorch: RuntimeError: no memory"
    ]


def test_a_network_that_cannot_be_exported_as_one_block_is_measured_with_pytorch_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> Path:
        raise UsageError("--blocks 1: impossible")

    monkeypatch.setattr(whole_network, "_peak", lambda command, limit: 50)
    measured = measure_whole_network(SETTINGS, refuse, {"a": 60}, threads=1)
    assert measured == WholeNetwork(
        native_devices=None, native_peak_bytes=None, pytorch_devices=1, pytorch_peak_bytes=50,
        native_failure="--blocks 1: impossible",
    )  # fmt: skip


def test_a_step_is_taken_with_the_one_tensor_that_a_model_returns() -> None:
    torch = pytest.importorskip("torch", reason="the step is torch's")
    from server.planner.pytorch_step import _logits

    tensor: Any = torch.zeros(2, 3)
    for output in (tensor, {"logits": tensor}, (tensor,), [{"logits": (tensor,)}]):
        assert _logits(output) is tensor
