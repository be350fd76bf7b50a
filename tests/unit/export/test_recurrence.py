"""A program of a recurrence has a number of operations for each step, however many steps there are."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from torch import nn  # noqa: E402

from device_profiles.manifest import Loss  # noqa: E402
from edge_runtime.export.ir.graph import Operation, StepGraph  # noqa: E402
from edge_runtime.export.plan.block_model import BlockModel  # noqa: E402
from edge_runtime.export.verify.programs import step_program  # noqa: E402
from tests.support.probes.layers import State  # noqa: E402


def _program(layer: type[nn.Module], steps: int) -> StepGraph:
    made = State(layer(5, 6, batch_first=True), 6)
    source = BlockModel.of(made, name="recurrent", batch=2, input_shape=(steps, 5), classes=4)
    graph, _ = step_program(source, Loss())
    return graph


@pytest.mark.parametrize("layer", [nn.GRU, nn.LSTM, nn.RNN])
def test_a_step_costs_as_many_operations_as_the_one_before(layer: type[nn.Module]) -> None:
    few, more, most = (len(_program(layer, steps).operations) for steps in (6, 12, 24))
    assert most - more == pytest.approx(2 * (more - few), rel=0.1)


def _touched(operation: Operation) -> int:
    """Bytes of what an operation puts out; of the gradient of a view that is added in place, those of the view."""
    if operation.operator == "strided_copy_backward" and operation.arguments[3] is not None:
        return operation.reads[0].bytes
    return sum(value.bytes for value in operation.writes)


@pytest.mark.parametrize("layer", [nn.GRU, nn.LSTM, nn.RNN])
def test_no_step_goes_over_the_whole_sequence(layer: type[nn.Module]) -> None:
    few, more, most = (sum(map(_touched, _program(layer, steps).operations)) for steps in (6, 12, 24))
    assert most - more == pytest.approx(2 * (more - few), rel=0.1)
