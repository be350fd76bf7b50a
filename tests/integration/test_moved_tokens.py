"""Models that move their tokens about, or compare them with others: they train as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from device_profiles.contract import CONSTANT_PREFIX  # noqa: E402
from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402
from edge_runtime.export.verify import inputs  # noqa: E402
from tests.support.native_step import NativeStep  # noqa: E402

BATCH, LENGTH, VOCABULARY, CLASSES, RATE, END = 6, 12, 20, 4, 0.05, 2


class Moving(nn.Module):
    """Tokens [N, 12] that `move` makes other tokens of: logits [N, 4]."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.table, self.first = nn.Embedding(VOCABULARY, 8), nn.Linear(8, 8)
        self.last, self._move = nn.Linear(8, CLASSES), move

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 12] -> [N, 4]."""
        x = self.first(self.table(self._move(tokens))).relu()
        return self.last(x.mean(0) if x.shape[0] == LENGTH else x.flatten(1, -2).mean(1))


class AtTheEnd(nn.Module):
    """Reads what is at the token that ends a text, as the classifiers of encoders with decoders do."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(VOCABULARY, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self._place = place

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 12] -> [N, 4]."""
        x, ends = self.first(self.table(tokens)).relu().cumsum(1), tokens.eq(END)
        torch._check(torch.unique_consecutive(ends.sum(1)).numel() == 1)
        return self.last(x[ends, :].view(x.shape[0], -1, x.shape[2])[:, self._place])


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sequence_first": lambda tokens: tokens.t(),
    "turned_within": lambda tokens: tokens.view(-1, 3, 4).permute(0, 2, 1),
    "without_the_first": lambda tokens: tokens[:, 1:],
    "every_second": lambda tokens: tokens[:, ::2],
    "backwards": lambda tokens: tokens.flip(1),
    "rolled": lambda tokens: tokens.roll(1, 1),
    "shifted": lambda tokens: nn.functional.pad(tokens[:, :-1], (1, 0), value=3),
    "windows": lambda tokens: tokens.unfold(1, 3, 2),
    "twice": lambda tokens: torch.cat((tokens, tokens), 1),
    "stacked": lambda tokens: torch.stack((tokens, tokens.flip(1)), 1),
    "chosen": lambda tokens: tokens[:, [3, 1, 2]],
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda move=move: Moving(move) for name, move in MOVES.items()},  # type: ignore[misc]  # one a name
    "last_of_the_marked": lambda: AtTheEnd(-1),
    "first_of_the_marked": lambda: AtTheEnd(0),
    "computed": lambda: Moving(lambda tokens: (2 * tokens) % VOCABULARY),
}


def __getattr__(name: str) -> Callable[[], nn.Module]:
    if name not in MODELS:
        raise AttributeError(name)
    return MODELS[name]


def _export(name: str, folder: Path) -> None:
    export_bundle(
        f"{__name__}:{name}",
        folder,
        batch=BATCH,
        classes=CLASSES,
        input_shape=(LENGTH,),
        input_dtype="int64",
        blocks=1,
        seed=3,
    )


def _tokens(generator: torch.Generator) -> Tensor:
    """Random tokens, two of every example the one that ends a text."""
    tokens = torch.randint(END + 1, VOCABULARY, (BATCH, LENGTH), generator=generator)
    for row in tokens:
        row[torch.randperm(LENGTH, generator=generator)[:2]] = END
    return tokens


@pytest.mark.parametrize("name", [name for name in MODELS if name != "computed"])
def test_tokens_that_move_train_as_in_pytorch(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    _export(name, tmp_path / "bundle")
    weights = load_file(tmp_path / "bundle" / "weights" / "initial.safetensors")
    native = NativeStep(tmp_path / "bundle", "grow-block1", {key: value.numpy() for key, value in weights.items()})
    module = MODELS[name]()
    module.load_state_dict({key: value for key, value in weights.items() if not key.startswith(CONSTANT_PREFIX)})
    optimizer = torch.optim.SGD(module.train().parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        tokens, labels = _tokens(generator), torch.randint(0, CLASSES, (BATCH,), generator=generator)
        optimizer.zero_grad()
        expected = nn.functional.cross_entropy(module(tokens), labels)
        expected.backward()
        optimizer.step()
        loss = native.step(tokens.numpy(), labels.numpy(), RATE)
        assert abs(loss - expected.item()) < 1e-5 * abs(expected.item())
    theirs = module.state_dict()
    for key, value in native.tensors().items():
        assert (torch.from_numpy(value) - theirs[key]).norm() < 1e-4 * theirs[key].norm() + 1e-6, key


def test_tokens_that_are_computed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="looks its tokens up in no table as they come"):
        _export("computed", tmp_path / "bundle")


def test_a_model_is_tried_with_the_tokens_that_it_compares_its_own_with_once_in_every_example() -> None:
    from edge_runtime.export.plan.block_model import BlockModel

    source = BlockModel.of(
        AtTheEnd(-1), name="m", batch=BATCH, input_shape=(LENGTH,), classes=CLASSES, input_dtype="int64"
    )
    assert inputs.compared_tokens(source) == [END]
    tokens = inputs.random_inputs(source, torch.Generator().manual_seed(5))
    assert tokens.shape == (BATCH, LENGTH) and int(tokens.min()) >= 0 and int(tokens.max()) < VOCABULARY
    assert (tokens == END).sum(1).tolist() == [1] * BATCH
