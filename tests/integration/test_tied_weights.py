"""Tensors that several modules share: refused across blocks, and trained as PyTorch does within one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.native_step import NativeStep  # noqa: E402

BATCH = 6


class Tied(nn.Module):
    """Linear layers of which two, or one and the head, share their weight; or one that is run twice."""

    def __init__(self, tied: str) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 10), nn.Linear(10, 10)
        self.third = self.first if tied == "again" else nn.Linear(10, 10)
        self.fc = nn.Linear(10, 10)
        if tied == "third":
            self.third.weight = self.first.weight
        elif tied == "head":
            self.fc.weight = self.second.weight

    def forward(self, x: Tensor) -> Tensor:
        """[N, 10] -> [N, 10]."""
        for layer in (self.first, self.second, self.third):
            x = layer(x).tanh()
        return self.fc(x)


class TiedNorm(nn.Module):
    """Two convolutions with one BatchNorm between and behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 10]."""
        x = self.norm(self.second(self.norm(self.first(x)).relu())).relu()
        return self.fc(x.mean((2, 3)))


def third() -> nn.Module:
    """First and third layer share a parameter under two names."""
    return Tied("third")


def again() -> nn.Module:
    """The first layer is run again as the third."""
    return Tied("again")


def head() -> nn.Module:
    """The second layer shares its weight with the head."""
    return Tied("head")


def _export(factory: str, folder: Path, **options: object) -> None:
    shape = (3, 8, 8) if factory == "TiedNorm" else (10,)
    export_bundle(f"{__name__}:{factory}", folder, input_shape=shape, batch=BATCH, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("factory", "partition", "message"),
    [
        (
            "third",
            "0,1,2",
            "tensor 'third.weight' is shared by module 'first' of block 1 and module 'third' of block 3",
        ),
        ("third", "0-1,2", "module 'first' of block 1 and module 'third' of block 2.*--partition 0-2$"),
        (
            "again",
            "0,1-2",
            "'third.weight' is shared by module 'first' of block 1 and module 'third' of block 2",
        ),
        (
            "head",
            "0,1-2",
            "tensor 'fc.weight' is shared by module 'second' of block 2 and module 'fc' of the head.*0-2",
        ),
        ("TiedNorm", "0,1", "tensor 'norm.weight' is shared by module 'norm' of block 1 and module 'norm' of block 2"),
    ],
)
def test_blocks_that_would_train_one_tensor_apart_are_refused(
    factory: str, partition: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        _export(factory, tmp_path / "bundle", partition=partition)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factory", ["third", "again", "head", "TiedNorm"])
def test_in_one_block_it_is_trained_as_in_pytorch(factory: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    _export(factory, tmp_path / "bundle", blocks=1)
    weights = load_file(tmp_path / "bundle" / "weights" / "initial.safetensors")
    native = NativeStep(tmp_path / "bundle", "grow-block1", {name: value.numpy() for name, value in weights.items()})
    module = globals()[factory]()
    module.load_state_dict(weights)
    optimizer = torch.optim.SGD(module.train().parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(2)
    shape = native.described.inputs[0].shape
    for _ in range(5):
        inputs, labels = torch.randn(shape, generator=generator), torch.randint(0, 10, (BATCH,), generator=generator)
        optimizer.zero_grad()
        expected = nn.functional.cross_entropy(module(inputs.clone()), labels)
        expected.backward()
        optimizer.step()
        loss = native.step(inputs.numpy(), labels.numpy(), 0.05)
        assert abs(loss - expected.item()) < 1e-5 * abs(expected.item())
    # A module takes a tensor under each of its names; the trained one is the name that counts.
    finished = globals()[factory]()
    finished.load_state_dict(weights | {k: torch.from_numpy(v) for k, v in native.tensors().items()})
    for name, value in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(finished.state_dict()[name], value, rtol=1e-4, atol=1e-6)
