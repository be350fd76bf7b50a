"""A program of a recurrence has a number of operations for each step, however many steps there are."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from torch import nn  # noqa: E402

from device_profiles.manifest import Loss  # noqa: E402
from edge_runtime.export.plan.block_model import BlockModel  # noqa: E402
from edge_runtime.export.verify.programs import step_program  # noqa: E402
from tests.support.probes.layers import State  # noqa: E402


def _operations(layer: type[nn.Module], steps: int) -> int:
    made = State(layer(5, 6, batch_first=True), 6)
    source = BlockModel.of(made, name="recurrent", batch=2, input_shape=(steps, 5), classes=4)
    graph, _ = step_program(source, Loss())
    return len(graph.operations)


@pytest.mark.parametrize("layer", [nn.GRU, nn.LSTM, nn.RNN])
def test_a_step_costs_as_many_operations_as_the_one_before(layer: type[nn.Module]) -> None:
    few, more, most = (_operations(layer, steps) for steps in (6, 12, 24))
    assert most - more == pytest.approx(2 * (more - few), rel=0.1)
