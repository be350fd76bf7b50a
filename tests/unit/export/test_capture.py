"""What is captured of a module, and what is refused with the operator's and the module's name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from torch import Tensor, nn  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.export.capture.capture import CapturedModel, capture  # noqa: E402
from edge_runtime.export.cut.units import cut  # noqa: E402


class _Forward(nn.Module):
    """A convolution, then a function of its output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.function = function
        self.register_buffer("hidden", torch.ones(4, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.stem(x))


def _capture(model: nn.Module) -> CapturedModel:
    return capture(model, batch=2, input_shape=(3, 8, 8))


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.ConvTranspose2d(3, 3, 17), r"conv_transpose2d.*more than 256 elements"),
        (nn.AlphaDropout(0.5), "dropout"),
        (nn.BatchNorm2d(3, track_running_stats=False), r"batch_norm.*without running statistics"),
        (nn.RReLU(), r"rrelu.*draws random numbers.*the nearest that works is nn.LeakyReLU"),
        (nn.InstanceNorm2d(3, track_running_stats=True), r"instance_norm.*with running statistics"),
        (nn.AdaptiveMaxPool2d(2, return_indices=True), r"returns 2"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_what_is_not_covered_is_named_with_its_module(module: nn.Module, named: str) -> None:
    with pytest.raises(UsageError, match=named) as raised:
        _capture(nn.Sequential(nn.Conv2d(3, 3, 1), module))
    assert "\n" not in str(raised.value)
    assert "'1'" in str(raised.value) or "returns 2" in str(raised.value)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: torch.cat([x, x], 0), r"cat.*batch dimension"),
        (lambda x: x.mean(), r"mean.*batch"),
        (lambda x: x.mean(0, keepdim=True), r"mean.*over the batch"),
        (
            lambda x: nn.functional.alpha_dropout(x, 0.2, training=True),
            r"alpha_dropout.*line \d+ of test_capture.py.*the nearest that works is nn.Dropout",
        ),
        (lambda x: x.lgamma(), r"lgamma.*made of prims.lgamma"),
        (lambda x: nn.functional.max_pool2d(x, 2, return_indices=True)[1].float(), r"max_pool2d"),
        (lambda x: torch.topk(x, 2, dim=1)[1].float(), r"topk.*places of the elements"),
        (lambda x: (x.view(2, -1), x.relu_())[0], r"relu_.*in place on a tensor that is read later"),
    ],
)
def test_a_use_that_is_not_covered_is_named(function: Callable[[Tensor], Tensor], named: str) -> None:
    with pytest.raises(UsageError, match=named) as raised:
        _capture(_Forward(function))
    assert "\n" not in str(raised.value) and "the model's own forward: operator" in str(raised.value)


@pytest.mark.parametrize("function", [lambda x: x.transpose(0, 1), lambda x: x[1:]])
def test_a_model_that_does_not_keep_its_examples_apart_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    model = _Forward(lambda x: function(x.mean((2, 3))))
    with pytest.raises(UsageError, match="rows for 2 examples"):
        cut(_capture(model), classes=4)


def test_a_constant_that_is_one_number_is_that_number() -> None:
    layer = _capture(_Forward(lambda x: x + torch.tensor(2.0))).layers[-1]
    assert (layer.kind, layer.attributes["offset"]) == ("affine", 2.0)


def test_a_buffer_that_no_file_holds_is_a_constant() -> None:
    class Hidden(_Forward):
        def forward(self, x: Tensor) -> Tensor:
            return self.stem(x) * self.hidden

    module = Hidden(lambda x: x)
    (value,) = _capture(module).constants.values()
    assert torch.equal(value, module.hidden)


def test_a_module_that_cannot_be_traced_is_refused_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"torch.export cannot trace the model for --input 3x8x8: ") as raised:
        _capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2)))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_tracing_leaves_the_module_in_the_mode_it_was_in() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _capture(model)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_in_place_and_not_is_the_same() -> None:
    def kinds(inplace: bool) -> list[str]:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(inplace), nn.Hardswish(inplace))
        return [layer.kind for layer in _capture(model).layers]

    assert kinds(True) == kinds(False)


def test_layers_that_the_output_does_not_need_are_left_out() -> None:
    def function(x: Tensor) -> Tensor:
        x.softmax(1).sum((2, 3)) if False else x.tanh()
        return x.sigmoid()

    assert [layer.kind for layer in _capture(_Forward(function)).layers] == ["conv2d", "activation"]
