"""Whatever a model holds: it trains as in PyTorch, or the export refuses it in one line with operator and module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

from device_profiles.contract import CONSTANT_PREFIX  # noqa: E402
from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.native_step import NativeStep  # noqa: E402
from tests.support.odd_models import ODD  # noqa: E402

BATCH, CLASSES, RATE = 6, 4, 0.05


def _export(name: str, folder: Path, blocks: int | None, *, verify: bool = True) -> None:
    odd = ODD[name]
    export_bundle(
        f"tests.support.odd_models:{name}",
        folder,
        batch=BATCH,
        classes=CLASSES,
        input_shape=odd.input_shape,
        blocks=blocks,
        seed=3,
        verify=verify,
        **odd.options,
    )


@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if odd.refusal is not None])
def test_what_is_not_covered_is_refused_in_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refusal = ODD[name].refusal
    assert refusal is not None
    with pytest.raises(UsageError, match=refusal) as raised:
        _export(name, tmp_path / "bundle", None)
    text = str(raised.value)
    assert "\n" not in text
    assert re.match(r"(module '[\w.]+'|the model's own forward): operator aten\.\w+", text) or text.startswith(
        "torch.export cannot trace"
    )
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if odd.refusal is None])
def test_what_is_covered_trains_as_in_pytorch(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    odd = ODD[name]
    _export(name, tmp_path / "blocks", None, verify=False)  # as it is below: of the whole model, however it is cut
    _export(name, tmp_path / "whole", 1)
    weights = load_file(tmp_path / "whole" / "weights" / "initial.safetensors")
    native = NativeStep(tmp_path / "whole", "grow-block1", {key: value.numpy() for key, value in weights.items()})
    module = odd.make()
    module.load_state_dict({name: value for name, value in weights.items() if not name.startswith(CONSTANT_PREFIX)})
    optimizer = torch.optim.SGD(module.train().parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        inputs = torch.randn(BATCH, *odd.input_shape, generator=generator)
        labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
        optimizer.zero_grad()
        expected = nn.functional.cross_entropy(module(inputs.clone()), labels)
        expected.backward()
        optimizer.step()
        loss = native.step(inputs.numpy(), labels.numpy(), RATE)
        assert abs(loss - expected.item()) < 1e-5 * abs(expected.item())
    theirs = module.state_dict()
    for key, value in native.tensors().items():
        assert (torch.from_numpy(value) - theirs[key]).norm() < 1e-4 * theirs[key].norm() + 1e-6, key
