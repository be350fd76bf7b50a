"""`npz:FILE?test=SHARE`: training never sees what is held out, evaluation sees nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_profiles.errors import DataError, ProflError, UsageError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.source import Split

COUNT = 60
LABELS = np.repeat([0, 1, 2], [30, 20, 10])
SPLITS: tuple[Split, ...] = ("train", "test")


def _file(folder: Path, name: str, **more: Any) -> str:
    """Example i holds i, so that what was read says which example it is."""
    numbers = np.arange(COUNT)
    made: Any = {
        "images": np.repeat(numbers, 16).reshape(COUNT, 4, 4).astype(np.uint8),
        "inputs": np.repeat(numbers, 7).reshape(COUNT, 7).astype(np.float32),
    }[name]
    np.savez(folder / "a.npz", **{name: made, "labels": LABELS, **more})
    return f"npz:{folder / 'a.npz'}"


def _numbers(spec: str, split: Split, shape: tuple[int, ...], **options: Any) -> list[int]:
    """The examples of a split, by the number each holds."""
    data = open_data(spec, split=split, input_shape=shape, **options)
    out = np.empty((len(data), *shape), np.float32)
    data.fetch(range(len(data)), out)
    first = out.reshape(len(data), -1)[:, 0]
    return [round(float(value)) for value in ((first + 1) * 127.5 if data.image_shape else first)]


@pytest.mark.parametrize(("name", "shape"), [("images", (1, 4, 4)), ("inputs", (7,))])
def test_the_splits_share_nothing_and_leave_nothing_out(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    spec = _file(tmp_path, name) + "?test=0.2"
    train, test = (_numbers(spec, split, shape) for split in SPLITS)
    assert sorted(train + test) == list(range(COUNT))
    assert Counter(LABELS[test].tolist()) == {0: 6, 1: 4, 2: 2}
    for split, numbers in zip(SPLITS, (train, test), strict=True):
        labels = open_data(spec, split=split, input_shape=shape).labels
        assert labels.tolist() == LABELS[numbers].tolist()


def test_the_seed_says_which_examples_are_held_out(tmp_path: Path) -> None:
    spec = _file(tmp_path, "inputs") + "?test=0.2"
    usual, zero, seven = (_numbers(spec + more, "test", (7,)) for more in ("", "&seed=0", "&seed=7"))
    assert usual == zero and usual != seven and len(seven) == len(usual)


def test_clients_and_targets_stay_with_their_examples(tmp_path: Path) -> None:
    clients, targets = np.arange(COUNT) % 5, np.arange(2 * COUNT, dtype=np.float32).reshape(COUNT, 2)
    spec = _file(tmp_path, "inputs", client=clients, labels=targets) + "?test=0.25"
    for split in SPLITS:
        numbers = _numbers(spec, split, (7,), targets=2)
        data = open_data(spec, split=split, input_shape=(7,), targets=2)
        assert data.clients is not None and data.clients.ids.tolist() == clients[numbers].tolist()
        assert data.labels.tolist() == targets[numbers].reshape(-1).tolist()


def test_a_token_that_is_unknown_is_named_in_either_split(tmp_path: Path) -> None:
    tokens = np.zeros((10, 3), np.int64)
    tokens[:, 1] = 8
    np.savez(tmp_path / "a.npz", inputs=tokens, labels=np.zeros(10, int))
    for split in SPLITS:
        spec = f"npz:{tmp_path / 'a.npz'}?test=0.3"
        data = open_data(spec, split=split, input_shape=(3,), input_dtype="int64")
        data.check_tokens(9)
        with pytest.raises(DataError, match=r"token 8 \(example 0\)"):
            data.check_tokens(8)


def test_a_file_whose_name_has_a_question_mark_is_taken_as_it_is(tmp_path: Path) -> None:
    _file(tmp_path, "inputs")
    (tmp_path / "a.npz").rename(tmp_path / "a?test=0.2")
    assert len(_numbers(f"npz:{tmp_path / 'a?test=0.2'}", "train", (7,))) == COUNT


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("?tset=0.2", "is not a hold-out"),
        ("?seed=3", "is not a hold-out"),
        ("?test=0.2&test=0.3", "is not a hold-out"),
        ("?test=a fifth", "not written with numbers"),
        ("?test=0.2&seed=1.5", "not written with numbers"),
        ("?test=0", "above 0 and below 1"),
        ("?test=nan", "above 0 and below 1"),
        ("?test=20", "above 0 and below 1"),
        ("?test=0.2&seed=-1", "above 0 and below 1, the seed a whole number from 0"),
        ("?test=0.001", "leaves none for testing"),
        ("?test=0.999", "leaves none for training"),
    ],
)
def test_what_is_no_share_is_one_line(tmp_path: Path, asked: str, said: str) -> None:
    with pytest.raises((UsageError, DataError), match=said) as raised:
        open_data(_file(tmp_path, "inputs") + asked, split="train", input_shape=(7,))
    assert "\n" not in str(raised.value)


def test_test_arrays_and_a_share_are_not_both(tmp_path: Path) -> None:
    spec = _file(tmp_path, "inputs", test_inputs=np.zeros((2, 7), np.float32), test_labels=[0, 1])
    for split in SPLITS:
        with pytest.raises(ProflError, match=r"has a test split of its own \(test_inputs\); leave \?test= out"):
            open_data(spec + "?test=0.2", split=split, input_shape=(7,))
