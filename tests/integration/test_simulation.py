"""The simulation engine trains every work as PyTorch does; stacked clients equal single ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from safetensors.numpy import load_file, save_file  # noqa: E402

from device_profiles.task import Task  # noqa: E402
from device_profiles.work import Narrow, Whole, Width, Work, depth, distill, grow, joint, label  # noqa: E402
from server.engines.simulation.engine import SimulationEngine  # noqa: E402
from server.engines.simulation.examples import Examples, batch_indices, model_inputs  # noqa: E402
from server.engines.simulation.networks import initial_classifiers  # noqa: E402
from server.engines.simulation.promises import promises_of  # noqa: E402
from server.engines.simulation.segments import ModelPieces  # noqa: E402
from server.engines.simulation.trainable import Terms  # noqa: E402
from server.engines.simulation.trainables import TrainableSet  # noqa: E402
from server.fleet.client import alike  # noqa: E402
from server.fleet.fleet import DataSettings, Fleet  # noqa: E402
from server.fleet.fleet import TrainingSettings as Training  # noqa: E402
from server.fleet.model import ModelSettings  # noqa: E402
from server.fleet.population import ClientSettings  # noqa: E402
from server.fleet.virtual import SimulationSettings  # noqa: E402
from server.rounds.seam import Failed, Updated  # noqa: E402

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


def _fleet(**training: Any) -> Fleet:
    return Fleet(
        model=ModelSettings(name="cnn", width=8, batch=8, input_shape=(3, 32, 32)),
        data=DataSettings(sources=("digits",)),
        named=tuple(ClientSettings(name=name, limit_mb=64) for name in "abc"),
        training=Training(**{"steps": 3, "learning_rate": 0.02, **training}),
    )


@cache
def _started(model: ModelSettings) -> tuple[TrainableSet, dict[str, torch.Tensor]]:
    """Every work of a model, captured once for all tests, and the weights that they start from."""
    works = TrainableSet(model)
    weights = works.pieces.initial_weights()
    return works, weights | initial_classifiers([works.of(work) for work in WORKS], 0)


class Setting:
    """An engine over random pixels and its weights in a file."""

    def __init__(self, folder: Path, *, clip_norm: float = 0.0, **simulation: Any) -> None:
        fleet = _fleet(clip_norm=clip_norm)
        self.fleet = msgspec.structs.replace(fleet, simulation=SimulationSettings(**simulation))
        self.works, weights = _started(self.fleet.model)
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
