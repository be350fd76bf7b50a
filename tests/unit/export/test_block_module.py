"""A block cut out of the captured graph trains as the hand-written reference does, tensor by tensor."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the block is a PyTorch module")

from torch.nn import functional

from edge_runtime.export import models
from edge_runtime.export.cut.units import partition_of
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.targets.block_module import block_graphs, joined
from edge_runtime.export.targets.native import initial_weights
from tests.support.reference import BlockReference

WIDTH, BATCH = 4, 4


@pytest.mark.parametrize(("name", "block"), [("cnn", 1), ("cnn", 3), ("resnet18", 3), ("vgg11_bn", 2)])
def test_two_steps_leave_the_same_tensors_as_the_reference(name: str, block: int) -> None:
    torch.manual_seed(3)
    module = models.create(name, width=WIDTH)
    source = BlockModel.of(module, name=name, batch=BATCH, input_shape=(3, 32, 32), classes=10)
    partition = partition_of(list(models.BUILT_IN[name].default_blocks), len(source.cut.units))
    weights = initial_weights(module, source, partition)
    reference = BlockReference(name, partition, block, weights, width=WIDTH)
    graphs = block_graphs(module, source, partition, block)
    for key, tensor in graphs.tensors.items():
        tensor.data.copy_(weights[key])
    ours = joined(graphs)
    trained = [parameter for parameter in ours.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.02, momentum=0.9, weight_decay=5e-4)
    for _ in range(2):
        images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
        expected = reference.step(images, labels, 0.02)
        loss = functional.cross_entropy(ours(images), labels)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = reference.tensors()
    assert graphs.trained_names().isdisjoint(graphs.frozen_names())
    for key, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, after[key], rtol=1e-4, atol=1e-5, msg=key)
