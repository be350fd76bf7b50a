"""The arithmetic of a step is counted from the program's operations."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch", reason="a step is built from a PyTorch module")

from device_profiles.manifest import Optimizer
from device_profiles.operators import table
from edge_runtime.export import models
from edge_runtime.export.cut.units import partition_of
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.loads import ATTENTION, MATMUL, PRODUCTS, floating_point_operations
from edge_runtime.export.plan.programs import build_programs
from edge_runtime.export.plan.runs import TrainingChoices


def test_a_step_of_the_small_network_counts_what_its_layers_multiply() -> None:
    module = models.create("cnn", width=4)
    source = BlockModel.of(module, name="cnn", batch=2, input_shape=(3, 32, 32), classes=10)
    partition = partition_of([(0, 0), (1, 1), (2, 2)], 3)
    choices = TrainingChoices(optimizer=Optimizer(name="sgd", momentum=0.9))
    step = next(graph for _, graph, _ in build_programs(source, partition, blocks=(2,), choices=choices))
    stem = 2 * 2 * 32 * 32 * 4 * 3 * 9
    active = 2 * 2 * 16 * 16 * 8 * 4 * 9
    stand_in = 2 * 2 * 8 * 8 * 16 * 8 * 9
    head = 2 * 2 * 16 * 10
    # The block needs no gradient of its input; the stand-in and the head need all three products.
    assert floating_point_operations(step.operations) == stem + 2 * active + 3 * stand_in + 3 * head
    assert floating_point_operations(step.operations[: step.prefix_operations]) == stem


def test_no_kernel_that_multiplies_matrices_is_left_out_of_the_count() -> None:
    products = {name for name in table().operators if re.search(r"conv|linear|matmul|attention", name)}
    assert products and products == {*PRODUCTS, *ATTENTION, MATMUL}
