"""Data that knows its clients: a column in npz files, folders of images, motion of watches, roles of plays."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import DataError, UsageError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.open import open_raw
from edge_runtime.experiments import smartwatch
from edge_runtime.experiments.shakespeare import ALPHABET, LENGTH, MIN_CHARACTERS, STEP

needs_seglearn = pytest.mark.skipif(find_spec("seglearn") is None, reason="the package seglearn is not installed")


@pytest.mark.parametrize(
    "inputs", [{"images": np.zeros((4, 2, 2), np.uint8)}, {"inputs": np.zeros((4, 3), np.float32)}]
)
def test_the_column_of_an_npz_file_names_clients_by_their_numbers(
    tmp_path: Path, inputs: dict[str, np.ndarray]
) -> None:
    name = next(iter(inputs))
    test = {f"test_{name}": inputs[name][:2], "test_labels": np.zeros(2, int), "test_client": np.array([5, 12])}
    np.savez(tmp_path / "a.npz", **inputs, labels=np.arange(4), client=np.array([12, 7, 12, -1]), **test)
    clients = open_raw(f"npz:{tmp_path / 'a.npz'}", split="train").clients
    assert clients is not None
    assert [clients.names[place] for place in clients.ids] == ["12", "7", "12", "-1"]
    held_out = open_raw(f"npz:{tmp_path / 'a.npz'}", split="test").clients
    assert held_out is not None and held_out.names == clients.names == ("-1", "5", "7", "12")
    assert [held_out.names[place] for place in held_out.ids] == ["5", "12"]


def test_without_a_column_there_are_no_clients(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 2, 2), np.uint8), labels=np.arange(4))
    assert open_data(f"npz:{tmp_path / 'a.npz'}", split="train", input_shape=(1, 2, 2)).clients is None


@pytest.mark.parametrize(
    ("column", "message"),
    [(np.arange(3), "3 clients for 4 examples"), (np.zeros(4), "expected whole numbers"), (np.array(list("abcd")), "")],
)
def test_a_wrong_column_is_refused(tmp_path: Path, column: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 2, 2), np.uint8), labels=np.arange(4), client=column)
    with pytest.raises(DataError, match=rf"a\.npz.*{message}"):
        open_raw(f"npz:{tmp_path / 'a.npz'}", split="train")


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P5\n2 2\n255\n" + bytes(4))


def test_folders_in_class_folders_are_clients_alike_in_both_splits(tmp_path: Path) -> None:
    for place in ("train/cat/ada/1", "train/cat/bob/1", "train/dog/bob/2", "train/dog/bob/1", "test/dog/cyd/1"):
        _image(tmp_path / f"{place}.pgm")
    train = open_data(f"images:{tmp_path}", split="train", input_shape=(1, 2, 2))
    assert train.clients is not None and train.clients.names == ("ada", "bob", "cyd")
    assert train.labels.tolist() == [0, 0, 1, 1] and train.clients.ids.tolist() == [0, 1, 1, 1]
    test = open_raw(f"images:{tmp_path}", split="test")
    assert test.clients is not None and test.clients.names == train.clients.names
    assert test.clients.ids.tolist() == [2]


def test_an_image_beside_folders_of_clients_is_refused_by_name(tmp_path: Path) -> None:
    _image(tmp_path / "cat/ada/1.pgm")
    _image(tmp_path / "cat/2.pgm")
    with pytest.raises(DataError, match=r"2\.pgm: is outside the client folders"):
        open_raw(f"images:{tmp_path}", split="train")


SAMPLES = {"a": 700, "b": 400}


@pytest.fixture
def watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Two recordings, one in either order of elements, in the package's format."""
    motion = {name: np.random.default_rng(count).normal(size=(count, 6)) for name, count in SAMPLES.items()}
    content = {
        "X": [np.asfortranarray(motion["a"]), motion["b"]],
        "y": np.array([3, 6]),
        "subject": np.array([1, 10]),
        "side": np.array([1.0, 0.0]),
        "y_labels": ["PEN"] * 7,
        "X_labels": ["ax"] * 6,
    }
    np.save(tmp_path / "watch.npy", np.array(content, dtype=object), allow_pickle=True)
    monkeypatch.setattr(smartwatch, "package_file", lambda *_: tmp_path / "watch.npy")
    return motion


def test_windows_of_motion_are_channels_first_and_know_whose_they_are(watches: dict[str, np.ndarray]) -> None:
    source = open_data("smartwatch", split="train", input_shape=(6, 128))
    places = [("a", start) for start in range(0, 560 - 127, 32)] + [("b", start) for start in range(0, 320 - 127, 32)]
    assert len(source) == len(places)
    out = np.empty((len(source), 6, 128), np.float32)
    source.fetch(range(len(source)), out)
    for window, (name, start) in zip(out, places, strict=True):
        np.testing.assert_array_equal(window, watches[name][start : start + 128].T.astype(np.float32))
    assert source.labels.tolist() == [3 if name == "a" else 6 for name, _ in places]
    assert source.clients is not None and source.clients.names == ("person-01-right", "person-10-left")
    assert source.clients.ids.tolist() == [0 if name == "a" else 1 for name, _ in places]


def test_no_sample_of_a_held_out_window_is_trained_on(watches: dict[str, np.ndarray]) -> None:
    test = open_data("smartwatch", split="test", input_shape=(6, 128))
    out = np.empty((len(test), 6, 128), np.float32)
    test.fetch(range(len(test)), out)
    assert len(test) == 1  # the last fifth of 700 samples holds one window, that of 400 none
    np.testing.assert_array_equal(out[0], watches["a"][560:688].T.astype(np.float32))


def test_new_people_are_held_out_whole(watches: dict[str, np.ndarray]) -> None:
    train, test = (open_raw("smartwatch:new-people", split=split) for split in ("train", "test"))
    assert set(train.labels) == {3} and set(test.labels) == {6}
    assert len(train.labels) == len(range(0, SAMPLES["a"] - 127, 32))
    assert len(test.labels) == len(range(0, SAMPLES["b"] - 127, 32))


@needs_seglearn
def test_the_packages_recordings_are_of_twenty_watches_and_seven_exercises() -> None:
    train, test = (open_data("smartwatch", split=split, input_shape=(6, 128)) for split in ("train", "test"))
    assert train.clients is not None and test.clients is not None
    assert (len(train), len(test)) == (5621, 1045)
    for source in (train, test):
        assert set(source.clients.ids) == set(range(20)) and set(source.labels) == set(range(7))
    assert min(Counter(train.clients.ids).values()) >= 150


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x76\x00 only a header", b"PK\x03\x04"])
def test_a_damaged_file_of_motion_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / "watch.npy").write_bytes(content)
    monkeypatch.setattr(smartwatch, "package_file", lambda *_: tmp_path / "watch.npy")
    with pytest.raises(DataError, match=r"watch\.npy"):
        open_raw("smartwatch", split="train")


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smartwatch, "package_file", lambda *_: None)
    with pytest.raises(DataError, match="pip install --no-deps seglearn"):
        open_raw("smartwatch", split="train")


@pytest.fixture
def plays(tmp_path: Path) -> Path:
    folder = tmp_path / "plays"
    folder.mkdir()
    line = "To be, or not to be: that is the question;\u00e9\n"
    speech = f"HAMLET.\n{line * 50}\n\n"
    other = f"Ophelia.\n{'My lord! ' * 60}\n\n"
    (folder / "hamlet_gut.txt").write_text(
        f"HAMLET\n\nby William Shakespeare\n\nHamlet, Prince of Denmark.\n\n{speech * 2}{other}{speech}[Exit.]\n",
        encoding="latin-1",
    )
    return folder


def test_a_role_predicts_its_own_next_character(plays: Path) -> None:
    train = open_data(f"shakespeare:{plays}", split="train", input_shape=(LENGTH,), input_dtype="int64")
    assert train.clients is not None and train.clients.names == ("hamlet/HAMLET",)  # Ophelia says too little
    said = "\n".join(["\n".join(["To be, or not to be: that is the question;"] * 50)] * 3)
    assert len(said) > MIN_CHARACTERS
    kept = said[: len(said) - len(said) // 5]
    starts = range(0, len(kept) - LENGTH, STEP)
    assert len(train) == len(starts) and train.classes == len(ALPHABET) == 80
    out = np.empty((len(train), LENGTH), np.int64)
    train.fetch(range(len(train)), out)
    assert ["".join(ALPHABET[token] for token in row) for row in out] == [kept[s : s + LENGTH] for s in starts]
    assert [ALPHABET[token] for token in train.labels] == [kept[s + LENGTH] for s in starts]
    test = open_data(f"shakespeare:{plays}", split="test", input_shape=(LENGTH,), input_dtype="int64")
    assert len(test) == len(range(0, len(said) // 5 - LENGTH, STEP))
    test.check_tokens(80)


def test_a_folder_without_plays_names_the_script(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"tools/get_shakespeare\.sh"):
            open_raw(f"shakespeare:{folder}", split="train")


def test_a_model_of_another_shape_or_loss_is_refused_with_both(plays: Path) -> None:
    with pytest.raises(DataError, match="int64 of 64 for an example, the model takes int64 of 32"):
        open_data(f"shakespeare:{plays}", split="train", input_shape=(32,), input_dtype="int64")
    with pytest.raises(UsageError, match="mean squared error"):
        open_data(f"shakespeare:{plays}", split="train", input_shape=(64,), input_dtype="int64", targets=1)


@pytest.mark.parametrize("spec", ["smartwatch:elsewhere", "shakespeare", "cifar100", "cifar10"])
def test_a_data_set_written_wrongly_lists_the_known(spec: str) -> None:
    with pytest.raises(UsageError, match=r"known: .*smartwatch"):
        open_raw(spec, split="train")
