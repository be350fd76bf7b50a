"""Programs for ExecuTorch's own TrainingModule, trained with its stock Python binding and its own optimizer."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")
training = pytest.importorskip("executorch.extension.training", reason="the stock binding trains the program")

from torch import Tensor, nn

from device_profiles.errors import FormatError
from device_profiles.files import read_json
from edge_runtime.export.cut.units import partition_of
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.models.text import TextTransformer
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.targets.block_module import block_graphs, joined_with_loss
from edge_runtime.export.targets.executorch import TrainingPrograms, export_executorch
from edge_runtime.export.targets.native import choose_partition, initial_weights
from tests.support.reference import BlockReference

# Small, because the wheel's convolutions are reference loops.
WIDTH, BATCH, SHAPE = 4, 4, (3, 16, 16)
RATE, MOMENTUM, DECAY, STEPS = 0.05, 0.9, 5e-4, 6
PARTITION = [(0, 0), (1, 1), (2, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("executorch") / "cnn"
    export_executorch("cnn", output, width=WIDTH, batch=BATCH, input_shape=SHAPE, seed=3)
    return output


def _batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(11)
    return [
        (torch.randn(BATCH, *SHAPE, generator=generator), torch.randint(0, 10, (BATCH,), generator=generator))
        for _ in range(STEPS)
    ]


def _reference(block: int) -> BlockReference:
    torch.manual_seed(3)
    module = create_model("cnn", width=WIDTH, classes=10, input_shape=SHAPE)
    source = BlockModel.of(module, name="cnn", batch=BATCH, input_shape=SHAPE, classes=10)
    partition = partition_of(PARTITION, 3)
    weights = initial_weights(module, source, partition)
    return BlockReference("cnn", partition, block, weights, width=WIDTH, momentum=MOMENTUM, weight_decay=DECAY)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_stock_training_module_trains_a_block_as_pytorch_does(block: int, folder: Path) -> None:
    module = training._load_for_executorch_for_training(str(folder / f"grow-block{block}.pte"))
    reference = _reference(block)
    optimizer = None
    losses = []
    for images, labels in _batches():
        expected = reference.step(images, labels, RATE)
        (loss,) = module.forward_backward("forward", (images, labels))
        if optimizer is None:  # the parameters are known after the first call
            optimizer = training.get_sgd_optimizer(module.named_parameters(), RATE, MOMENTUM, 0, DECAY, False)
        optimizer.step(module.named_gradients())
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        losses.append(loss.item())
    assert len(set(losses)) == STEPS
    described = read_json(folder / "programs.json", TrainingPrograms).programs[block - 1]
    assert set(module.named_parameters()) == set(described.parameters)
    for name, parameter in module.named_parameters().items():
        torch.testing.assert_close(parameter, reference.tensors()[name], rtol=1e-4, atol=1e-6, msg=name)


def two_layers() -> nn.Module:
    """The built-in `text_transformer` with a layer a block: ExecuTorch's passes take seconds for each."""
    model = TextTransformer(width=16, classes=9, length=12)
    model.layers = model.layers[:2]
    return model


@pytest.mark.parametrize("block", [pytest.param(1, marks=pytest.mark.study), 2])  # 2 has a prefix as well
def test_a_block_of_a_model_of_tokens_is_trained_as_pytorch_does(block: int, tmp_path: Path) -> None:
    output = tmp_path / "text"
    name = f"{__name__}:two_layers"
    options = {"input_shape": (12,), "input_dtype": "int64", "classes": 9, "batch": BATCH}
    export_executorch(name, output, seed=3, block=block, blocks=2, **options)  # type: ignore[arg-type]
    torch.manual_seed(3)
    model = create_model(name, width=None, classes=9, input_shape=(12,))
    source = BlockModel.of(model, name="text", batch=BATCH, input_shape=(12,), classes=9, input_dtype="int64")
    partition = choose_partition(source, name, blocks=2, partition=None)
    weights = initial_weights(model, source, partition)
    graphs = block_graphs(model, source, partition, block)
    for name, tensor in graphs.tensors.items():
        tensor.data.copy_(weights[name])
    reference = joined_with_loss(graphs)
    theirs = torch.optim.SGD([p for p in reference.parameters() if p.requires_grad], RATE, MOMENTUM)
    module = training._load_for_executorch_for_training(str(output / f"grow-block{block}.pte"))
    optimizer = None
    for _ in range(STEPS):
        tokens, labels = torch.randint(0, 9, (BATCH, 12)), torch.randint(0, 9, (BATCH,))
        expected = reference(tokens, labels)
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        (loss,) = module.forward_backward("forward", (tokens, labels))
        if optimizer is None:
            optimizer = training.get_sgd_optimizer(module.named_parameters(), RATE, MOMENTUM, 0, 0, False)
        optimizer.step(module.named_gradients())
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_running_statistics_start_from_the_file_and_can_be_read_back(folder: Path) -> None:
    from executorch.extension.pybindings.portable_lib import _load_program

    program = _load_program(str(folder / "grow-block2.pte"))
    method = program.load_method("forward")
    reference = _reference(2)
    images, labels = _batches()[0]
    reference.step(images, labels, RATE)
    method.call((images, labels))
    described = read_json(folder / "programs.json", TrainingPrograms).programs[1]
    assert set(described.buffers) == {f"stage2.1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    for name in described.buffers:
        torch.testing.assert_close(method.get_attribute(name), reference.tensors()[name], rtol=1e-5, atol=1e-6)


def test_trained_weights_take_the_place_of_initial_ones(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(9)
    trained = torch.randn(16, 8, 3, 3)
    weights = {
        **create_model("cnn", width=WIDTH, classes=10, input_shape=SHAPE).state_dict(),
        "stage3.0.weight": trained,
    }
    save_file(weights, tmp_path / "model.safetensors")
    output = tmp_path / "programs"
    export_executorch(
        "cnn", output, width=WIDTH, batch=BATCH, input_shape=SHAPE, block=3, weights=tmp_path / "model.safetensors"
    )
    assert sorted(path.name for path in output.iterdir()) == ["grow-block3.pte", "programs.json"]
    module = training._load_for_executorch_for_training(str(output / "grow-block3.pte"))
    module.forward_backward("forward", _batches()[0])
    torch.testing.assert_close(module.named_parameters()["stage3.0.weight"], trained)


def test_weights_of_some_blocks_are_refused_for_the_whole_model(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"stage3.0.weight": torch.randn(16, 8, 3, 3)}, tmp_path / "update.safetensors")
    with pytest.raises(
        FormatError, match=r"update\.safetensors: tensor 'stage1\.0\.weight', .* is missing; give a whole"
    ):
        export_executorch(
            "cnn", tmp_path / "programs", width=WIDTH, input_shape=SHAPE, weights=tmp_path / "update.safetensors"
        )
    assert not (tmp_path / "programs").exists()
