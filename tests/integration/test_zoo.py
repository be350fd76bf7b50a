"""What users write: it trains as in PyTorch, with what must stay as it is untouched, or is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

from device_profiles.errors import ProflError  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.native_step import NativeStep  # noqa: E402
from tests.support.zoo import ZOO  # noqa: E402

BATCH, RATE, STEPS = 4, 0.05, 4
TRAINED = [name for name, case in ZOO.items() if case.refusal is None]


def _export(name: str, folder: Path, *, verify: bool = True) -> None:
    case = ZOO[name]
    export_bundle(
        f"tests.support.zoo:{name}",
        folder,
        batch=BATCH,
        input_shape=case.input_shape,
        blocks=1,
        seed=3,
        verify=verify,
        **case.options,
    )


@pytest.mark.parametrize("name", [name for name, case in ZOO.items() if case.refusal is not None])
def test_what_would_be_trained_otherwise_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    refusal = ZOO[name].refusal
    assert refusal is not None
    with pytest.raises(ProflError, match=refusal) as raised:
        _export(name, tmp_path / "bundle")
    assert "\n" not in str(raised.value) and "fault of the exporter" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_taken_trains_as_in_pytorch(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    case = ZOO[name]
    _export(name, tmp_path / "bundle", verify=case.drops)
    if case.drops:  # whose elements PyTorch drops others of: held against it by the export itself, without dropping
        return
    weights = load_file(tmp_path / "bundle" / "weights" / "initial.safetensors")
    native = NativeStep(tmp_path / "bundle", "grow-block1", {key: value.numpy() for key, value in weights.items()})
    module = case.make()
    own = {key: value for key, value in weights.items() if not key.startswith("constant.")}
    module.load_state_dict(own, strict=True)
    if not module.training:
        module.train()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        inputs = torch.randn(BATCH, *case.input_shape, generator=generator)
        labels = torch.randint(0, 10, (BATCH,), generator=generator)
        optimizer.zero_grad()
        expected = nn.functional.cross_entropy(module(inputs.clone()), labels)
        expected.backward()
        optimizer.step()
        loss = native.step(inputs.numpy(), labels.numpy(), RATE)
        assert abs(loss - expected.item()) < 1e-5 * abs(expected.item())
    update = {key: torch.from_numpy(value) for key, value in native.tensors().items()}
    assert not set(case.still) & set(update)
    finished = case.make()
    finished.load_state_dict(own | update, strict=True)
    theirs = module.state_dict()
    for key, value in finished.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            wanted = theirs[key].double()
            assert (value.double() - wanted).norm() < 1e-4 * wanted.norm() + 1e-6, key
    assert {key for key, p in module.named_parameters(remove_duplicate=False) if p.grad is not None} <= set(update)


@pytest.mark.parametrize("name", ["reverse", "tensor_hook", "counter", "noise", "neighbours", "half"])
def test_the_names_of_what_is_refused_do_not_hang_on_the_verification(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProflError, match=re.compile(str(ZOO[name].refusal))):
        _export(name, tmp_path / "bundle", verify=False)
