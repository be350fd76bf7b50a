"""Networks of which several tensors live before the head: these lie side by side in one row for each example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")
pytest.importorskip("executorch", reason="the bundle is written with it")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from device_profiles.manifest import Manifest  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from tests.support.device_commands import profl_edge  # noqa: E402
from tests.support.probes.computed import LastWord  # noqa: E402

BATCH, RATE = 6, 0.1


class Branches(nn.Module):
    """Two branches from the input on, each with a classifier, whose answers are averaged: [N, 3, 8, 8] -> [N, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(3, 6, 4, stride=4)
        self.of_fine, self.of_coarse = nn.Linear(4, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        fine, coarse = torch.tanh(self.fine(x)), torch.tanh(self.coarse(x))
        fine = fine * (1 + coarse.mean((1, 2, 3), keepdim=True))
        coarse = coarse + fine.mean((1, 2, 3), keepdim=True)
        answers = (self.of_fine(fine.mean((2, 3))), self.of_coarse(coarse.mean((2, 3))))
        return torch.stack(answers).mean(0)


def branches() -> nn.Module:
    """With the same weights always."""
    torch.manual_seed(2)
    return Branches()


def last_word() -> nn.Module:
    """A classifier of the last word before the padding."""
    torch.manual_seed(2)
    return LastWord()


def _inputs(model: str) -> np.ndarray:
    generator = np.random.default_rng(1)
    if model == "branches":
        return generator.standard_normal((BATCH, 3, 8, 8)).astype(np.float32)
    words = generator.integers(1, 20, (BATCH, 7))
    for row, length in enumerate((7, 5, 1, 6, 3, 2)):
        words[row, length:] = 0
    return words


@pytest.mark.parametrize(
    ("model", "shape", "dtype"), [("branches", (3, 8, 8), "float32"), ("last_word", (7,), "int64")]
)
def test_a_step_is_that_of_pytorch(model: str, shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    manifest: Manifest = export_bundle(
        f"{__name__}:{model}",
        tmp_path / "bundle",
        batch=BATCH,
        input_shape=shape,
        input_dtype=dtype,  # type: ignore[arg-type]  # one of the two
        classes=4,
        momentum=0.0,
        weight_decay=0.0,
    )
    assert len(manifest.model.units) == 1
    inputs, labels = _inputs(model), np.arange(BATCH) % 4
    np.savez(tmp_path / "d.npz", inputs=inputs, labels=labels, test_inputs=inputs, test_labels=labels)
    data = f"npz:{tmp_path / 'd.npz'}"
    update = tmp_path / "u.safetensors"
    done = profl_edge(
        "train", tmp_path / "bundle", "--data", data, "--steps", 1, "--lr", RATE, "-o", update, "--json"
    ).report()
    module = globals()[model]()
    loss = functional.cross_entropy(module(torch.from_numpy(inputs)), torch.from_numpy(labels))
    loss.backward()
    assert done["loss_first"] == pytest.approx(loss.item(), rel=1e-5)
    trained = load_file(update)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(trained[name], parameter.detach() - RATE * parameter.grad, rtol=1e-5, atol=1e-6)
    judged = profl_edge("eval", tmp_path / "bundle", "--data", data, "--json").report()
    module = globals()[model]()
    with torch.no_grad():
        expected = functional.cross_entropy(module(torch.from_numpy(inputs)), torch.from_numpy(labels))
    assert judged["loss"] == pytest.approx(expected.item(), rel=1e-5)
