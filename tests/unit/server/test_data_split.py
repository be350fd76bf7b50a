"""Splits of data among clients: what holds for any labels, clients and seeds."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.errors import DataError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.source import Clients
from server.data.split import choose_source, read_examples, split_indices, write_parts
from server.fleet.fleet import DataSettings

NATURAL_CLIENTS = 12


def _settings(**changes: object) -> DataSettings:
    return DataSettings(**{"sources": ("digits",), **changes})  # type: ignore[arg-type]


def _names(count: int) -> list[str]:
    return [f"device-{number}" for number in range(count)]


def _natural(examples: int, seed: int) -> Clients:
    ids = np.random.default_rng(seed).permutation(np.arange(examples) % NATURAL_CLIENTS)
    return Clients(array("q", ids.tolist()), tuple(f"person-{number}" for number in range(NATURAL_CLIENTS)))


@st.composite
def _cases(draw: st.DrawFn) -> tuple[np.ndarray, int, DataSettings, Clients]:
    clients = draw(st.integers(1, NATURAL_CLIENTS))
    examples = draw(st.integers(20 * NATURAL_CLIENTS, 500))
    classes = draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**32))
    labels = np.random.default_rng(seed).integers(0, classes, examples)
    chosen = _settings(
        split=draw(st.sampled_from(["iid", "shards", "dirichlet", "natural"])),
        alpha=draw(st.sampled_from([0.5, 1.0, 100.0])),
        shards_per_client=draw(st.integers(1, 4)),
        min_examples=draw(st.integers(1, 3)),
        examples_per_client=draw(st.none() | st.integers(3, 30)),
        seed=seed,
    )
    return labels, clients, chosen, _natural(examples, seed)


@settings(max_examples=150, deadline=None)
@given(_cases())
def test_parts_are_disjoint_sorted_and_as_large_as_asked(case: tuple[np.ndarray, int, DataSettings, Clients]) -> None:
    labels, clients, chosen, natural = case
    parts = split_indices(labels, _names(clients), chosen, natural)
    assert set(parts) == set(_names(clients))
    together = np.concatenate(list(parts.values()))
    assert len(np.unique(together)) == len(together)
    assert together.min() >= 0 and together.max() < len(labels)
    for part in parts.values():
        assert (np.diff(part) > 0).all()
        assert chosen.min_examples <= len(part) <= (chosen.examples_per_client or len(labels))


@settings(max_examples=100, deadline=None)
@given(_cases())
def test_without_a_cap_every_example_is_somewhere(case: tuple[np.ndarray, int, DataSettings, Clients]) -> None:
    labels, clients, chosen, natural = case
    if chosen.examples_per_client is not None or (chosen.split == "natural" and clients < NATURAL_CLIENTS):
        clients, chosen = NATURAL_CLIENTS, _settings(split="natural", seed=chosen.seed)
    parts = split_indices(labels, _names(clients), chosen, natural)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(labels)))


@settings(max_examples=100, deadline=None)
@given(_cases(), st.randoms(use_true_random=False))
def test_parts_follow_from_the_seed_and_not_from_the_order_of_clients(
    case: tuple[np.ndarray, int, DataSettings, Clients], random: object
) -> None:
    labels, clients, chosen, natural = case
    names = _names(clients)
    parts = split_indices(labels, names, chosen, natural)
    random.shuffle(names)  # type: ignore[attr-defined]
    again = split_indices(labels, names, chosen, natural)
    for name, part in parts.items():
        np.testing.assert_array_equal(part, again[name])


@pytest.mark.parametrize("split", ["iid", "shards", "dirichlet"])
def test_another_seed_is_another_split(split: str) -> None:
    labels = np.arange(1000) % 10
    parts, other = (split_indices(labels, _names(6), _settings(split=split, seed=seed)) for seed in (5, 6))
    assert any(not np.array_equal(parts[name], other[name]) for name in parts)


def test_iid_parts_differ_by_one_example_and_hold_every_class() -> None:
    labels = np.sort(np.arange(1003) % 10)
    parts = split_indices(labels, _names(7), _settings())
    assert {len(part) for part in parts.values()} == {143, 144}
    assert all(len(set(labels[part])) == 10 for part in parts.values())


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_give_a_client_few_classes(shards: int) -> None:
    labels = np.sort(np.arange(1000) % 10)
    parts = split_indices(labels, _names(10), _settings(split="shards", shards_per_client=shards))
    # A shard is no longer than a class here, so it holds two at most.
    assert max(len(set(labels[part])) for part in parts.values()) <= 2 * shards
    assert {len(part) for part in parts.values()} == {100}


def _classes_of(alpha: float) -> float:
    labels = np.arange(5000) % 10
    parts = split_indices(labels, _names(20), _settings(split="dirichlet", alpha=alpha))
    return float(np.mean([len(set(labels[part])) for part in parts.values()]))


def test_a_smaller_alpha_leaves_a_client_fewer_classes() -> None:
    assert _classes_of(0.05) < 4 < _classes_of(0.5) < 9.5 < _classes_of(100.0)


def test_a_dirichlet_split_is_drawn_again_until_nobody_has_too_little() -> None:
    labels = np.arange(4000) % 10
    loose = split_indices(labels, _names(40), _settings(split="dirichlet", alpha=0.1))
    assert min(map(len, loose.values())) < 15
    strict = split_indices(labels, _names(40), _settings(split="dirichlet", alpha=0.1, min_examples=15))
    assert min(map(len, strict.values())) >= 15


def test_a_cap_keeps_the_classes_in_proportion() -> None:
    labels = np.sort(np.arange(2000) % 10)
    chosen = _settings(split="dirichlet", alpha=1000.0, examples_per_client=100)
    for part in split_indices(labels, _names(4), chosen).values():
        assert len(part) == 100 and len(set(labels[part])) == 10


def test_each_device_is_one_of_the_data_sets_own_clients() -> None:
    natural = _natural(240, 1)
    parts = split_indices(np.zeros(240, int), _names(5), _settings(split="natural"), natural)
    owners = [{natural.ids[index] for index in part} for part in parts.values()]
    assert all(len(owner) == 1 for owner in owners) and len(set.union(*owners)) == 5
    assert {len(part) for part in parts.values()} == {240 // NATURAL_CLIENTS}


def test_clients_with_too_little_are_never_drawn() -> None:
    ids = array("q", [0] * 2 + [1] * 30 + [2] * 30)
    natural = Clients(ids, ("little", "much", "more"))
    for seed in range(20):
        chosen = _settings(split="natural", min_examples=3, seed=seed)
        parts = split_indices(np.zeros(62, int), _names(2), chosen, natural)
        assert sorted(len(part) for part in parts.values()) == [30, 30]


@pytest.mark.parametrize(
    ("changes", "clients", "natural", "message"),
    [
        ({"split": "natural"}, 2, None, "has no clients of its own"),
        ({"split": "natural"}, 13, _natural(240, 0), "12 clients of the data set have 1 examples, the fleet has 13"),
        ({"split": "natural", "min_examples": 21}, 2, _natural(240, 0), "0 clients of the data set have 21"),
        ({"min_examples": 50}, 5, None, "240 examples are fewer than 50 for each of 5 clients"),
        ({"split": "shards", "shards_per_client": 100}, 5, None, "too few for 500 shards"),
        ({"split": "shards", "min_examples": 24}, 10, None, None),
        ({"split": "dirichlet", "alpha": 0.01, "min_examples": 24}, 10, None, "use a larger alpha"),
    ],
)
def test_a_split_that_cannot_be_names_the_remedy(
    changes: dict[str, object], clients: int, natural: Clients | None, message: str | None
) -> None:
    labels = np.arange(240) % 4
    if message is None:
        assert len(split_indices(labels, _names(clients), _settings(**changes), natural)) == clients
        return
    with pytest.raises(DataError, match=f"^data\\..*{message}"):
        split_indices(labels, _names(clients), _settings(**changes), natural)


def _data(path: Path, inputs: np.ndarray) -> str:
    name = "images" if inputs.dtype == np.uint8 else "inputs"
    np.savez(path, **{name: inputs}, labels=np.arange(len(inputs)) % 3, client=np.arange(len(inputs)) % 4)
    return f"npz:{path}"


@pytest.mark.parametrize(
    "inputs",
    [
        np.arange(12 * 16, dtype=np.uint8).reshape(12, 1, 4, 4),
        np.random.default_rng(0).normal(size=(12, 6, 8)).astype(np.float32),
        np.arange(12 * 5).reshape(12, 5),
    ],
    ids=["images", "sensors", "tokens"],
)
@pytest.mark.parametrize("split", ["iid", "shards", "dirichlet", "natural"])
def test_a_written_part_is_what_the_split_says(tmp_path: Path, inputs: np.ndarray, split: str) -> None:
    source = _data(tmp_path / "all.npz", inputs)
    chosen = _settings(split=split, alpha=10.0)
    natural = Clients(array("q", [index % 4 for index in range(12)]), ("0", "1", "2", "3"))
    expected = split_indices(np.arange(12) % 3, _names(4), chosen, natural)
    folder = tmp_path / "parts"
    folder.mkdir()
    shape = inputs.shape[1:]
    dtype = "int64" if inputs.dtype == np.int64 else "float32"
    whole = open_data(source, split="train", input_shape=shape, input_dtype=dtype)  # type: ignore[arg-type]
    everything = np.empty(inputs.shape, dtype)
    whole.fetch(range(12), everything)
    for name, path in write_parts(source, folder, _names(4), chosen).items():
        part = open_data(f"npz:{path}", split="train", input_shape=shape, input_dtype=dtype)  # type: ignore[arg-type]
        out = np.empty((len(part), *shape), dtype)
        part.fetch(range(len(part)), out)
        np.testing.assert_array_equal(out, everything[expected[name]])
        assert part.labels.tolist() == (expected[name] % 3).tolist()


def test_the_first_source_that_is_there_is_taken(tmp_path: Path) -> None:
    there = _data(tmp_path / "all.npz", np.zeros((4, 6, 8), np.float32))
    source, missing = choose_source(_settings(sources=(f"npz:{tmp_path}/absent.npz", there)))
    assert source == there and len(missing) == 1 and "absent" in missing[0]


def test_a_share_that_is_held_out_is_in_no_clients_part_and_is_the_test_split(tmp_path: Path) -> None:
    path = tmp_path / "all.npz"
    images = np.arange(100, dtype=np.uint8).repeat(16).reshape(100, 1, 4, 4)
    np.savez(path, images=images, labels=np.arange(100) % 4)
    source = f"npz:{path}?test=0.2&seed=3"
    chosen, missing = choose_source(_settings(sources=(source,)))
    assert chosen == source and not missing
    parts = write_parts(source, tmp_path / "parts", _names(3), _settings(sources=(source,)))
    trained = np.concatenate([np.load(part)["images"][:, 0, 0, 0] for part in parts.values()])
    tested = read_examples(source, "test")[0][:, 0, 0, 0]
    assert len(tested) == 20 and sorted([*trained.tolist(), *tested.tolist()]) == list(range(100))
