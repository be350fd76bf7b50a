"""Adapters beside frozen weights: what they compute, which layers have them, what is trained."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models are PyTorch's")

from torch import Tensor, nn  # noqa: E402

from device_profiles.contract import lora_names  # noqa: E402
from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.export.models.lora import add_lora, lora_of  # noqa: E402


class Net(nn.Module):
    """An attention, two linear layers, one of them tied, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.q_proj = nn.Linear(8, 8)
        self.other = nn.Linear(8, 8)
        self.table = nn.Embedding(8, 8)
        self.tied = nn.Linear(8, 8, bias=False)
        self.tied.weight = self.table.weight
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        logits: Tensor = self.fc(self.tied(self.other(self.q_proj(x)))[:, -1])
        return logits


def _net(**options: Any) -> Net:
    torch.manual_seed(3)
    net = Net()
    add_lora(net, **{"rank": 2, "alpha": None, "targets": (), "classes": 3} | options)
    return net


def test_an_adapter_starts_at_nothing() -> None:
    torch.manual_seed(3)
    x, plain = torch.randn(5, 4, 8), Net()
    plain.load_state_dict({k: v for k, v in _net().state_dict().items() if "lora" not in k})
    assert torch.equal(_net()(x), plain(x))


def test_what_is_computed_is_the_plain_network_with_the_merged_weights() -> None:
    net, plain = _net(alpha=3.0), Net()
    for name, parameter in net.named_parameters():
        if "lora_b" in name:
            nn.init.normal_(parameter)
    given = lora_of(net)
    assert given is not None and given.scale == 1.5
    state = net.state_dict()
    for weight in given.weights:
        a, b = (state[name] for name in lora_names(weight))
        state[weight] = state[weight] + given.scale * (b @ a)
    plain.load_state_dict({name: value for name, value in state.items() if "lora" not in name}, strict=True)
    x = torch.randn(5, 4, 8)
    torch.testing.assert_close(net(x), plain(x))


def test_linear_layers_and_attentions_have_adapters_but_tied_weights_and_the_classifier_have_none() -> None:
    given = lora_of(_net())
    assert given is not None
    assert given.weights == (
        "attention.in_proj_weight", "attention.out_proj.weight", "q_proj.weight", "other.weight",
    )  # fmt: skip


@pytest.mark.parametrize("pattern", ["q_proj", "q_*", "*_proj"])
def test_targets_are_patterns_of_names(pattern: str) -> None:
    given = lora_of(_net(targets=(pattern,)))
    assert given is not None and given.weights == ("q_proj.weight",)


def test_only_adapters_and_the_classifier_are_trained() -> None:
    trained = {name for name, parameter in _net(targets=("other",)).named_parameters() if parameter.requires_grad}
    assert trained == {"other.lora_a", "other.lora_b", "fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"targets": ("k_proj",)}, "--lora-targets k_proj: matches no linear layer or attention; there are q_proj"),
        ({"targets": ("tied",)}, "--lora-targets tied: matches no linear layer"),
        ({"rank": 8}, r"--lora 8: is not below the smaller side of a weight \[24, 8\]"),
    ],
)
def test_what_has_no_adapter_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        _net(**options)


def test_a_network_without_linear_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="has no linear layer beside the classifier"):
        add_lora(nn.Sequential(nn.Linear(4, 3)), rank=1, alpha=None, targets=(), classes=3)
