"""Where models are cut, and where their heads begin."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from torch import Tensor, nn  # noqa: E402

from device_profiles.contract import DType  # noqa: E402
from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.export import models  # noqa: E402
from edge_runtime.export.capture.capture import capture  # noqa: E402
from edge_runtime.export.cut.units import CutModel, cut, parse_partition  # noqa: E402
from edge_runtime.export.passes.fusion import fuse  # noqa: E402
from tests.support import models as others  # noqa: E402


def _cut(
    model: nn.Module,
    shape: tuple[int, ...] = (3, 32, 32),
    *,
    classes: int = 10,
    head: str | None = None,
    input_dtype: DType = "float32",
) -> CutModel:
    return cut(fuse(capture(model, batch=2, input_shape=shape, input_dtype=input_dtype)), classes=classes, head=head)


def _units(name: str) -> list[str]:
    usual = models.BUILT_IN[name]
    model = models.create(name, width=4, classes=usual.classes, input_channels=usual.input_shape[0])
    return [
        unit.name for unit in _cut(model, usual.input_shape, classes=usual.classes, input_dtype=usual.input_dtype).units
    ]


def test_resnet18_is_cut_between_its_residual_blocks() -> None:
    assert _units("resnet18") == ["conv1", *[f"layer{s}.{i}" for s in (1, 2, 3, 4) for i in (0, 1)]]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet34", 17),
        ("vgg11_bn", 8),
        ("vgg16_bn", 13),
        ("cnn", 3),
        ("cnn1d", 8),
        ("text_transformer", 9),
        ("text_decoder", 9),
    ],
)
def test_units_of_the_other_models(name: str, count: int) -> None:
    assert len(_units(name)) == count


@pytest.mark.parametrize("name", list(models.BUILT_IN))
def test_default_blocks_cover_the_model(name: str) -> None:
    ranges = ",".join(f"{a}-{b}" for a, b in models.BUILT_IN[name].default_blocks)
    assert len(parse_partition(ranges, len(_units(name))).blocks) == len(models.BUILT_IN[name].default_blocks)


@pytest.mark.parametrize("text", ["0-1,3-8", "1-8", "0-7", "0-4,4-8"])
def test_a_partition_with_a_gap_or_overlap_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"^--partition {text}: .*; give units 0 to 8 once, in order$"):
        parse_partition(text, 9)


def test_a_partition_that_is_not_numbers_names_the_option() -> None:
    with pytest.raises(UsageError, match="--partition"):
        parse_partition("a-b", 9)


def test_batch_norm_takes_the_residual_and_the_relu() -> None:
    model = models.create("resnet18", width=4)
    layers = fuse(capture(model, batch=2, input_shape=(3, 32, 32))).layers
    kinds = [layer.kind for layer in layers]
    assert "activation" not in kinds and "add" not in kinds
    assert sum(len(layer.inputs) == 2 for layer in layers) == 8


def test_normalisation_in_front_of_a_convolution_stays_with_what_is_before_it_or_in_its_branch() -> None:
    assert [unit.name for unit in _cut(others.densenet()).units][:3] == [
        "features.0",
        "features.1.layers.0",
        "features.1.layers.1.0",
    ]


def test_every_cut_has_one_tensor_and_every_unit_weights() -> None:
    for factory in (others.mobilenet_v3, others.efficientnet, others.inception):
        made = _cut(factory())
        names = [unit.name for unit in made.units]
        assert len(set(names)) == len(names)
        known = {made.input}
        for unit in made.units:
            produced = {layer.output for layer in unit.layers}
            read = {name for layer in unit.layers for name in layer.inputs}
            assert read - produced == {unit.input} and unit.input in known
            assert unit.tensors
            known = {unit.output}


def test_where_a_model_cannot_be_cut_the_living_tensors_are_named() -> None:
    made = _cut(others.inception())
    (branches,) = (reason for reason in made.uncut if made.units[reason.unit].name == "1")
    assert (branches.first, branches.last, branches.layers) == ("1.one", "1.mean.1", 5)
    assert branches.alive == ("0.1 (8x16x16)", "1.one (4x16x16)")
    assert _cut(others.lenet(), (1, 28, 28)).uncut == ()


class _Tail(nn.Module):
    """A convolution, then whatever a test is about."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.tail = tail

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.stem(x))


HEADS = {
    "pooling and linear": (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)), "tail.0"),
    "largest values and linear": (nn.Sequential(nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(32, 10)), "tail.0"),
    "windows of the whole image": (nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(8, 10)), "tail.0"),
    "two linear layers": (
        nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 12), nn.Hardswish(), nn.Dropout(0.0), nn.Linear(12, 10)
        ),
        "tail.0",
    ),
    "flattened images": (nn.Sequential(nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 10)), "tail.1"),
    "convolution and pooling": (
        nn.Sequential(nn.Conv2d(8, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "tail.0",
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_recognised(name: str) -> None:
    tail, begin = HEADS[name]
    made = _cut(_Tail(tail), (3, 8, 8))
    assert made.head.layers[0].module == begin
    assert made.units[0].name == "stem"


def test_of_features_only_the_last_linear_layer_is_the_head() -> None:
    made = _cut(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 10), nn.Sigmoid()), (3, 8, 8))
    assert [unit.name for unit in made.units] == ["1"]
    assert [layer.module for layer in made.head.layers] == ["3", "4"]


class _Weighted(nn.Module):
    """Classes from weighted means."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.gate = nn.Conv2d(8, 1, 1)
        self.values = nn.Conv2d(8, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return (self.values(x) * torch.sigmoid(self.gate(x))).sum((2, 3))


class _Averaged(nn.Module):
    """Two classifiers of the same features, as in LeViT, or the classes of every token, averaged."""

    def __init__(self, *, tokens: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.mix = nn.Conv2d(8, 8, 3)
        self.heads = nn.ModuleList([nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 10)) for _ in range(2)])
        self.tokens = tokens

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.mix(torch.relu(self.stem(x))))
        if self.tokens:
            y: Tensor = self.heads[0][1](x.flatten(2).transpose(1, 2)).mean(1)
            return y
        x = x.mean((2, 3))
        z: Tensor = (self.heads[0](x) + self.heads[1](x)) / 2
        return z


class _Auxiliary(nn.Module):
    """A classifier of one token, and the largest classes of all others, as in VOLO."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Linear(12, 8), nn.Linear(8, 8)
        self.head, self.aux = nn.Linear(8, 10), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.mix(torch.relu(self.stem(x))))
        y: Tensor = self.head(x[:, 0]) + 0.5 * self.aux(x[:, 1:]).max(1)[0]
        return y


class _Unknown(nn.Module):
    """A tail that no rule knows: features that are mixed by their own products."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 10)
        self.keys = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.keys(x)
        return (y.transpose(1, 2) @ y).softmax(-1).mean(1)


def test_a_head_of_weighted_means_begins_where_one_tensor_is_alive() -> None:
    made = _cut(_Weighted(), (3, 8, 8))
    assert [unit.name for unit in made.units] == ["stem"]
    assert {layer.module for layer in made.head.layers if layer.tensors} == {"gate", "values"}


@pytest.mark.parametrize("tokens", [False, True])
def test_averages_of_classifiers_are_a_head(tokens: bool) -> None:
    made = _cut(_Averaged(tokens=tokens), (3, 8, 8))
    assert [unit.name for unit in made.units] == ["stem", "mix"]
    assert [layer.kind for layer in made.head.layers].count("linear") == 2 - tokens


def test_a_classifier_of_one_token_and_of_all_others_is_a_head() -> None:
    made = _cut(_Auxiliary(), (5, 12))
    assert [unit.name for unit in made.units] == ["stem", "mix"]
    assert {layer.module for layer in made.head.layers if layer.tensors} == {"head", "aux"}


def test_a_model_without_a_classifier_head_is_refused_and_told_the_last_module_with_weights() -> None:
    with pytest.raises(UsageError, match=r"classifier head.*with --head keys$"):
        _cut(_Unknown(), (5, 12))
    made = _cut(_Unknown(), (5, 12), head="keys")
    assert made.head.layers[0].module == "keys"
    with pytest.raises(UsageError, match=r"the head cannot begin at 'gate': relu .*, values .* live there as well"):
        _cut(_Weighted(), (3, 8, 8), head="gate")


def test_a_head_that_does_not_exist_is_refused_with_the_last_modules() -> None:
    with pytest.raises(UsageError, match=r"--head tail.*stem, values, gate"):
        _cut(_Weighted(), (3, 8, 8), head="tail")


def test_a_model_that_gives_other_than_the_classes_names_the_option() -> None:
    with pytest.raises(UsageError, match="returns 10 for an example, not 7 logits; correct --classes"):
        _cut(models.create("cnn", width=4), classes=7)
    with pytest.raises(UsageError, match="returns 4x6x6 for an example"):
        _cut(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 8, 8))
