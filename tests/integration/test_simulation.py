"""The simulation engine: the same batches, steps and rounds as the light runtime; stacked clients equal single ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from safetensors.numpy import load_file, save_file  # noqa: E402

from device_profiles.task import Task
from device_profiles.work import Narrow, Whole, Width, Work, depth, distill, grow, joint, label  # noqa: E402
from edge_runtime.device import _native  # noqa: E402
from edge_runtime.device.data.npz import write_npz  # noqa: E402
from edge_runtime.device.data.open import open_data  # noqa: E402
from edge_runtime.device.worker.batches import epoch_start  # noqa: E402
from server.engines.simulation.engine import SimulationEngine  # noqa: E402
from server.engines.simulation.examples import (  # noqa: E402
    Examples,
    batch_indices,
    crop_and_flip,
    epoch_order,
    model_inputs,
)
from server.engines.simulation.promises import promises_of  # noqa: E402
from server.engines.simulation.segments import ModelPieces  # noqa: E402
from server.engines.simulation.trainables import Terms, TrainableSet, initial_classifiers  # noqa: E402
from server.fleet.client import alike  # noqa: E402
from server.fleet.fleet import (  # noqa: E402
    DataSettings,
    Fleet,
    ModelSettings,
    SimulationSettings,
)
from server.fleet.fleet import TrainingSettings as Training  # noqa: E402
from server.fleet.population import ClientSettings
from server.fleet.reading import read_fleet  # noqa: E402
from server.rounds.run_state import RoundRecord  # noqa: E402
from server.rounds.schedule import Observer  # noqa: E402
from server.rounds.seam import Failed, Updated  # noqa: E402
from server.running.run_fleet import run_fleet  # noqa: E402
from tests.support import warm  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

PARTITION = ModelPieces(ModelSettings(name="cnn", width=4, batch=8)).partition
WORKS: list[Work] = [
    *[grow(PARTITION, block) for block in (1, 2, 3)],
    *[joint(PARTITION, first, 3) for first in (1, 2)],
    *[distill(PARTITION, block) for block in (2, 3)],
    Whole(),
    Narrow(ratio=0.5),
    Width(ratio=0.5),
    *[depth(PARTITION, block) for block in (1, 2, 3)],
]


@pytest.mark.parametrize("count", [1, 17, 500])
def test_examples_come_in_the_order_of_the_device(count: int) -> None:
    for seed, epoch in ((0, 0), (7, 3), (123456789, 1)):
        device = _native.Order(epoch_start(seed, epoch), count).batch(0, count)
        assert epoch_order(seed, epoch, count).tolist() == list(device)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 32, 32)])
def test_pixels_become_the_values_of_the_device(shape: tuple[int, int, int], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    write_npz(tmp_path / "part.npz", images, np.arange(3))
    staged = np.empty((3, 3, 32, 32), np.float32)
    source = open_data(f"npz:{tmp_path / 'part.npz'}", split="train", input_shape=(3, 32, 32))
    source.fetch([0, 1, 2], staged)
    np.testing.assert_array_equal(model_inputs(torch.from_numpy(images), (3, 32, 32)).numpy(), staged)


def test_crops_are_windows_of_the_padded_image_or_their_mirror_images() -> None:
    images = torch.randn(40, 2, 6, 5)
    cropped = crop_and_flip(images, torch.Generator().manual_seed(3))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), value=-1.0)
    places = set()
    for number in range(40):
        found = [
            (top, left, flipped)
            for top in range(9)
            for left in range(9)
            for flipped in (False, True)
            if torch.equal(_window(padded[number], top, left, flipped), cropped[number])
        ]
        assert found, number
        places.add(found[0])
    assert len(places) > 20 and len({flipped for _, _, flipped in places}) == 2


def _window(padded: Any, top: int, left: int, flipped: bool) -> Any:
    window = padded[:, top : top + 6, left : left + 5]
    return window.flip(2) if flipped else window


def _fleet(**training: Any) -> Fleet:
    return Fleet(
        model=ModelSettings(name="cnn", width=8, batch=8, input_shape=(3, 32, 32)),
        data=DataSettings(sources=("digits",)),
        named=tuple(ClientSettings(name=name, limit_mb=64) for name in "abc"),
        training=Training(**{"steps": 3, "learning_rate": 0.02, **training}),
    )


class Setting:
    """An engine over random pixels and its weights in a file."""

    def __init__(self, folder: Path, *, clip_norm: float = 0.0, **simulation: Any) -> None:
        fleet = _fleet(clip_norm=clip_norm)
        self.fleet = msgspec.structs.replace(fleet, simulation=SimulationSettings(**simulation))
        self.works = TrainableSet(self.fleet.model)
        generator = torch.Generator().manual_seed(0)
        self.clients = {
            name: Examples(
                torch.randint(0, 256, (20, 1, 28, 28), generator=generator, dtype=torch.uint8),
                torch.randint(0, 4 if name == "b" else 10, (20,), generator=generator),
            )
            for name in "abc"
        }
        self.engine = SimulationEngine(
            self.fleet,
            self.works,
            clients=self.clients,
            there=alike(dict.fromkeys("abc", 0), {}),
            device=torch.device("cpu"),
        )
        self.path = folder / "weights.safetensors"
        weights = self.works.pieces.initial_weights()
        weights |= initial_classifiers([self.works.of(work) for work in WORKS], 0)
        save_file({name: tensor.numpy() for name, tensor in weights.items()}, self.path)

    def train(self, work: Work, **options: Any) -> dict[str, dict[str, np.ndarray]]:
        tasks = [
            Task(
                client=name,
                work=work,
                weights=self.path,
                base_version="v",
                steps=3,
                epochs=None,
                learning_rate=0.02,
                seed=5,
                **options,
            )
            for name in "abc"
        ]
        self.engine.submit(tasks)
        events = [event for event in self.engine.events(None) if isinstance(event, Updated)]
        assert [event.task for event in events] == [task.key for task in tasks]
        results = [event.result for event in events]
        assert all(result.status == "ok" and result.steps == 3 and result.bytes_up > 0 for result in results)
        assert {event.update.metadata.program for event in events} == {label(work, PARTITION)}
        return {event.task.client: dict(event.update.tensors) for event in events}


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_stacked_clients_end_where_single_ones_do(work: Work, tmp_path: Path) -> None:
    alone = Setting(tmp_path, stack=1).train(work, consistency=0.5, proximal=0.1)
    stacked = Setting(tmp_path, stack=3).train(work, consistency=0.5, proximal=0.1)
    start = load_file(tmp_path / "weights.safetensors")
    for client, tensors in alone.items():
        for name, tensor in tensors.items():
            distance = np.linalg.norm(stacked[client][name] - tensor)
            # One activation that rounds to the other side of a ReLU shows in a bias that started at zero.
            assert distance <= 1e-3 * np.linalg.norm(tensor), (client, name)
            if "running" in name or name.endswith("weight"):
                corner = tuple(slice(extent) for extent in tensor.shape)
                assert not np.array_equal(tensor, start[name][corner]), name


def test_clipped_gradients_are_those_of_pytorch_for_single_and_stacked_clients(tmp_path: Path) -> None:
    setting = Setting(tmp_path, clip_norm=0.2, stack=1)
    work = Whole()
    alone, stacked = setting.train(work), Setting(tmp_path, clip_norm=0.2, stack=3).train(work)
    trainable = setting.works.of(work)
    start = {name: torch.from_numpy(tensor) for name, tensor in load_file(setting.path).items()}
    for client, examples in setting.clients.items():
        state = {name: start[name].clone() for name in trainable.trained}
        names = [name for name, tensor in trainable.trained.items() if tensor.role == "parameter"]
        parameters = [state[name].requires_grad_() for name in names]
        optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=5e-4)
        for rows in batch_indices(5, len(examples), 8, 3):
            images = model_inputs(examples.inputs[torch.from_numpy(rows)], (3, 32, 32))
            optimizer.zero_grad()
            trainable.loss(state, {}, images, examples.labels[torch.from_numpy(rows)], Terms()).backward()
            assert torch.nn.utils.clip_grad_norm_(parameters, 0.2) > 0.2  # or nothing would be tested
            optimizer.step()
        for name in names:
            expected = state[name].detach().numpy()
            for trained in (alone, stacked):
                assert np.linalg.norm(trained[client][name] - expected) <= 1e-4 * np.linalg.norm(expected) + 1e-6, name


@pytest.mark.parametrize("prefix", ["stage2", None])
@pytest.mark.parametrize(
    "work",
    [grow(PARTITION, 3), joint(PARTITION, 2, 3), distill(PARTITION, 2)],
    ids=lambda work: work.name,
)
def test_kept_features_change_nothing(work: Work, prefix: str | None, tmp_path: Path) -> None:
    setting = Setting(tmp_path, cache_mb=100)
    kept = setting.train(work, prefix=prefix)
    assert bool(setting.engine._features.kept) == (prefix is not None)
    not_kept = Setting(tmp_path, cache_mb=0).train(work, prefix="stage2")
    for client, tensors in kept.items():
        for name, tensor in tensors.items():
            np.testing.assert_allclose(not_kept[client][name], tensor, rtol=1e-4, atol=1e-6)


def test_all_blocks_trained_together_are_the_whole_network(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    together, whole = setting.train(joint(PARTITION, 1, 3)), setting.train(Whole())
    for client, tensors in whole.items():
        assert set(together[client]) == set(tensors)
        for name, tensor in tensors.items():
            np.testing.assert_allclose(together[client][name], tensor, rtol=1e-4, atol=1e-6)


def test_a_run_of_blocks_trains_what_its_blocks_hold_behind_those_that_stay_frozen(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    alone = setting.works.of(grow(PARTITION, 3))
    run = setting.works.of(joint(PARTITION, 2, 3))
    assert set(run.trained) == set(alone.trained) | {n for n in setting.works.pieces.block_names(2) if "num_" not in n}
    assert run.prefix is setting.works.of(grow(PARTITION, 2)).prefix
    assert alone.read == run.read


def test_classes_that_a_client_lacks_stay_out_of_heterofls_head(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    start = load_file(setting.path)["fc.weight"]
    trained = setting.train(Width(ratio=1.0))["b"]["fc.weight"]
    decay = (1 - 0.02 * 5e-4) ** 6  # weight decay alone moves them
    np.testing.assert_allclose(trained[4:], start[4:], rtol=1 - decay)
    assert not np.allclose(trained[:4], start[:4], rtol=1e-3)


def test_a_client_with_too_few_examples_is_a_result_and_no_exception(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.clients["a"] = Examples(setting.clients["a"].inputs[:5], setting.clients["a"].labels[:5])
    task = Task(
        client="a",
        work=Whole(),
        weights=setting.path,
        base_version="v",
        steps=1,
        epochs=None,
        learning_rate=0.1,
        seed=0,
    )
    setting.engine.submit([task])
    (event,) = setting.engine.events(None)
    assert isinstance(event, Failed) and "5 examples" in event.result.status


def test_narrower_and_shallower_work_promises_less() -> None:
    fleet = _fleet()
    for source in ("pytorch", "runtime"):
        promises = promises_of(fleet, WORKS, PARTITION, source=source)
        table = {label(work, PARTITION): needed for work, needed in promises.items()}
        assert table["narrow-0.5"] < table["whole"]
        assert table["depth1"] < table["depth2"] < table["whole"] * 1.1
        assert all(table[f"distill-block{block}"] < table["whole"] for block in (2, 3))
        assert max(table[f"grow-block{block}"] for block in (1, 2, 3)) < table["whole"]
        assert table["grow-block3"] < table["joint-blocks2-3"] < table["joint-blocks1-3"] <= table["whole"] * 1.01


ROUNDS = """
[model]
name = "cnn"
width = 8
batch = 16

[data]
sources = ["digits"]
test_examples = 64

[training]
steps = 4
{option}

[method]
shrinking = true
shrink_rounds = 1
distill_rounds = 1
distill_learning_rate = 1e-3

[freezing]
max_rounds = 1
window = 1
fit_length = 2

[promises]
source = "runtime"

[[clients]]
name = "a"
limit_mb = 96

[[clients]]
name = "b"
limit_mb = 90
"""


def _run(folder: Path, engine: str) -> dict[str, Any]:
    """The summary of a run of `fleet.toml` in `folder`, below which it lies by the engine's name."""
    options = ["--fleet", folder / "fleet.toml", "--engine", engine, "--no-whole-network", "--json"]
    finished = warm.run(warm.PROFL_SERVER, "run", *options, "-o", folder / engine, folder=ROOT)
    assert finished.returncode == 0, finished.stderr
    summary: dict[str, Any] = json.loads(finished.stdout)
    return summary


@pytest.mark.parametrize(
    "option",
    [
        "learning_rate = 0.02\nproximal = 0.1",
        "learning_rate = 0.02\nclip_norm = 0.5",
        'learning_rate = 0.02\nnesterov = true\nmomentum_dtype = "bfloat16"',
        'optimizer = "adamw"\nbeta2 = 0.99\neps = 1e-4',
    ],
)
def test_seven_rounds_end_with_the_same_weights_on_both_engines(option: str, tmp_path: Path) -> None:
    """Shrinking, distilling and growing, a round each, from one file: processes of the light runtime beside PyTorch."""
    (tmp_path / "fleet.toml").write_text(ROUNDS.format(option=option))
    models = {}
    for engine in ("local", "simulation"):
        summary = _run(tmp_path, engine)
        assert [(step["stage"], step["block"], step["rounds"]) for step in summary["steps"]] == [
            ("shrink", 3, 1), ("distill", 3, 1), ("shrink", 2, 1), ("distill", 2, 1),
            ("grow", 1, 1), ("grow", 2, 1), ("grow", 3, 1),
        ]  # fmt: skip
        assert summary["steps"][1]["accuracy"] >= 0
        models[engine] = load_file(tmp_path / engine / "model.safetensors")
    for name, tensor in models["local"].items():
        distance = np.linalg.norm(models["simulation"][name] - tensor)
        assert distance <= 1e-3 * max(np.linalg.norm(tensor), 1e-3), name


ELASTIC = """
margin = 0.0

[model]
name = "cnn"
width = 64
batch = 128

[data]
sources = ["digits"]
test_examples = 64

[training]
steps = 2
learning_rate = 0.02

[method]
name = "elastic"

[freezing]
max_rounds = 2
window = 1
fit_length = 2

[promises]
source = "runtime"

[[clients]]
name = "large"
limit_mb = 130

[[clients]]
name = "medium"
limit_mb = 93

[[clients]]
name = "small"
limit_mb = 60
"""


def test_clients_that_train_runs_of_blocks_end_with_the_same_weights_on_both_engines(tmp_path: Path) -> None:
    """Growing by `elastic`, two rounds a step: one client trains every block, another the last two, the third the last.

    The simulation keeps what frozen blocks put out, the processes do not: were it kept too long, both would differ.
    """
    (tmp_path / "fleet.toml").write_text(ELASTIC)
    models = {}
    for engine in ("local", "simulation"):
        _run(tmp_path, engine)
        rounds = [json.loads(line) for line in (tmp_path / engine / "rounds.jsonl").read_text().splitlines()]
        assert [[client["client"] for client in line["clients"]] for line in rounds] == [
            *[["large"]] * 2, *[["large", "medium"]] * 2, *[["large", "medium", "small"]] * 2,
        ]  # fmt: skip
        assert all(client["status"] == "ok" for line in rounds for client in line["clients"])
        models[engine] = load_file(tmp_path / engine / "model.safetensors")
    plan = json.loads((tmp_path / "local" / "plan.json").read_text())
    assert [[client["program"] for client in step["clients"]] for step in plan["steps"]] == [
        ["grow-block1", None, None],
        ["joint-blocks1-2", "grow-block2", None],
        ["joint-blocks1-3", "joint-blocks2-3", "grow-block3"],
    ]
    for name, tensor in models["local"].items():
        distance = np.linalg.norm(models["simulation"][name] - tensor)
        assert distance <= 1e-3 * max(np.linalg.norm(tensor), 1e-2), name  # a bias has hardly left zero


SMALL = """
[model]
name = "cnn"
width = 4
batch = 16

[data]
sources = ["digits"]
test_examples = 64
examples_per_client = 64

[population]
count = 6
memory_mb = [1, 2]

[promises]
source = "pytorch"

[training]
epochs = 1
rounds = 5
clients_per_round = 3
augment = "crop-flip"
schedule = "cosine"

[method]
name = "{method}"
"""


class _Stop(Exception):
    pass


class _StopsAfter(Observer):
    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def round_done(self, record: RoundRecord) -> None:
        if record.round == self.rounds:
            raise _Stop


@pytest.mark.parametrize("method", ["fedavg", "heterofl", "depthfl", "allsmall", "exclusivefl", "profl", "elastic"])
def test_a_run_that_is_resumed_ends_with_the_same_bits(method: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(SMALL.format(method=method))
    fleet = read_fleet(path)

    def go(folder: Path, observer: Observer) -> Any:
        return run_fleet(fleet, folder, resume=True, observer=observer, note=lambda text: None, engine="simulation")

    whole = go(tmp_path / "whole", Observer())
    with pytest.raises(_Stop):
        go(tmp_path / "broken", _StopsAfter(2))
    resumed = go(tmp_path / "broken", Observer())
    assert resumed.rounds == whole.rounds == 5 and resumed.accuracy == whole.accuracy
    assert resumed.method == method
    assert (resumed.bytes_down, resumed.bytes_up) == (whole.bytes_down, whole.bytes_up)
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")]
    for name, tensor in models[0].items():
        np.testing.assert_array_equal(models[1][name], tensor)
