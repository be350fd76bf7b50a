"""Tables, sounds and texts of the user's own: the values that a model gets, and one line for what is wrong."""

from __future__ import annotations

import importlib
import math
import struct
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from device_profiles.errors import DataError, ProflError, UsageError
from edge_runtime.device.data import open_data

TABLE = "length,name,width,species\n1.5,a,2,oak\n-3,b,4e1,ash\n0.25,c,6,oak\n\n7,d,8,elm\n"


def _read(spec: str, shape: tuple[int, ...], split: Any = "train", **options: Any) -> tuple[Any, list[Any]]:
    data = open_data(spec, split=split, input_shape=shape, **options)
    out = np.empty((len(data), *shape), options.get("input_dtype", "float32"))
    data.fetch(range(len(data)), out)
    return out, data.labels.tolist()


def _table(folder: Path, text: str = TABLE) -> str:
    (folder / "t.csv").write_text(text)
    return f"csv:{folder / 't.csv'}"


def test_a_table_gives_the_other_columns_in_their_order_and_names_as_classes(tmp_path: Path) -> None:
    values, labels = _read(_table(tmp_path) + "?label=species&drop=name", (2,))
    assert values.tolist() == [[1.5, 2], [-3, 40], [0.25, 6], [7, 8]]
    assert labels == [2, 0, 2, 1]
    data = open_data(
        _table(tmp_path) + "?label=species&drop=name&classes=oak,ash,elm,yew", split="train", input_shape=(2,)
    )
    assert (data.labels.tolist(), data.classes) == ([0, 1, 0, 2], 4)


def test_labels_of_a_table_are_whole_numbers_or_numbers_to_predict(tmp_path: Path) -> None:
    spec = _table(tmp_path, "x,y\n1,3\n2,0.0\n") + "?label=y"
    assert _read(spec, (1,))[1] == [3, 0]
    assert _read(spec, (1,), targets=1)[1] == [3.0, 0.0]
    with pytest.raises(DataError, match=r"example 2 has the label 0\.5; classes are whole numbers"):
        _read(_table(tmp_path, "x,y\n1,3\n2,0.5\n") + "?label=y", (1,))


def test_a_share_of_a_table_is_held_out(tmp_path: Path) -> None:
    rows = "".join(f"{row},{row % 2}\n" for row in range(20))
    spec = _table(tmp_path, "x,y\n" + rows) + "?label=y&test=0.2&seed=3"
    (train, _), (test, labels) = (_read(spec, (1,), split) for split in ("train", "test"))
    assert sorted([*train.flat, *test.flat]) == list(range(20)) and sorted(labels) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        (TABLE, "", "does not say which column is the label; write .*label=COLUMN"),
        (TABLE, "?label=specie", "has no column 'specie'; did you mean species"),
        (TABLE, "?label=species", "row 2: name: 'a' is not a finite number; correct it, or leave the column out"),
        (TABLE, "?label=species&drop=name&classes=oak,ash", "example 4 is of the class 'elm'"),
        (TABLE, "?label=species&lable=x", "'lable=x' is not an option of it"),
        ("x,y\n1,2,3\n", "?label=y", "row 2 has 3 fields, the first 2"),
        ("x,y\n,1\n", "?label=y", "row 2: x: is empty"),
        ("x,y\n1,\n", "?label=y", "row 2 has no label"),
        ("x,x\n1,1\n", "?label=x", "must name every column once"),
        ("x,y\n", "?label=y", "has no row"),
        ("y\n1\n", "?label=y", "has no column beside the label"),
        ('x,y\n"1,2\n', "?label=y", "line 3: unexpected end of data"),
        ("x,y\nnan,2\n", "?label=y", "'nan' is not a finite number"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(tmp_path: Path, text: str, options: str, match: str) -> None:
    with pytest.raises(ProflError, match=match) as caught:
        _read(_table(tmp_path, text) + options, (2,))
    assert "\n" not in str(caught.value)


def test_a_table_has_no_test_split_unless_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no test split; train and evaluate with test=0\.2"):
        _read(_table(tmp_path) + "?label=species&drop=name", (2,), "test")


def test_parquet_requires_pyarrow_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    imported = importlib.import_module

    def without(name: str, *more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return imported(name, *more)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(DataError, match=r"Parquet requires pyarrow; .*extra 'parquet'"):
        _read(f"parquet:{tmp_path / 't.parquet'}?label=y", (1,))


def test_a_parquet_file_is_a_table(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="writes a Parquet file: pip install pyarrow")
    from pyarrow import parquet

    table = arrow.table({"x": [1.5, 2.5], "n": [3, 4], "y": ["b", "a"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    values, labels = _read(f"parquet:{tmp_path / 't.parquet'}?label=y", (2,))
    assert (values.tolist(), labels) == ([[1.5, 3], [2.5, 4]], [1, 0])
    (tmp_path / "t.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        _read(f"parquet:{tmp_path / 't.parquet'}?label=y", (2,))


def _wav(path: Path, values: Sequence[float], *, width: int = 2, channels: int = 1, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    most = 1 << (8 * width - 1)
    numbers = [min(most - 1, round(value * most)) for value in values]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        frames = [(number + 128 if width == 1 else number) for number in numbers]
        file.writeframes(b"".join(frame.to_bytes(width, "little", signed=width > 1) for frame in frames))


def _expected(samples: torch.Tensor, mels: int) -> torch.Tensor:
    """By PyTorch's short-time Fourier transform, and triangles written down one by one."""
    window = torch.hann_window(400, dtype=torch.float64)
    padded = torch.nn.functional.pad(window, (0, 112))
    frames = samples.double().unfold(0, 400, 160)
    power = torch.fft.rfft(torch.nn.functional.pad(frames, (0, 112)) * padded).abs() ** 2
    mel = [2595 * math.log10(1 + hertz / 700) for hertz in (20, 8000)]
    at = [700 * (10 ** ((mel[0] + (mel[1] - mel[0]) * i / (mels + 1)) / 2595) - 1) for i in range(mels + 2)]
    bands = torch.zeros(mels, 257, dtype=torch.float64)
    for band in range(mels):
        for place in range(257):
            hertz = place * 16000 / 512
            up, down = (
                (hertz - at[band]) / (at[band + 1] - at[band]),
                (at[band + 2] - hertz) / (at[band + 2] - at[band + 1]),
            )
            bands[band, place] = max(0.0, min(up, down))
    return torch.log(bands @ power.T + 1e-6).float()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sounds_become_log_mel_features(tmp_path: Path, width: int) -> None:
    tone = [0.5 * math.sin(2 * math.pi * 440 * at / 16000) for at in range(4000)]
    for name in "ab":
        for index in range(5):
            _wav(tmp_path / name / f"{index}.wav", tone, width=width)
    values, labels = _read(f"wav:{tmp_path}?seconds=0.5&mels=20", (20, 48))
    assert labels == [0] * 4 + [1] * 4
    most = 1 << (8 * width - 1)
    quantised = [min(most - 1, round(value * most)) / most for value in tone] + [0.0] * 4000
    assert np.allclose(values[0], _expected(torch.tensor(quantised), 20), atol=1e-3)


def test_two_channels_become_their_mean_and_a_long_sound_is_cut(tmp_path: Path) -> None:
    left = [math.sin(at / 5) / 2 for at in range(2000)]
    for name in ("s", "m"):
        both = [value for sample in left for value in ((sample, 0.0) if name == "s" else (sample / 2,))]
        _wav(tmp_path / name / "train.wav", both, width=4, channels=2 if name == "s" else 1)
        for index in range(4):
            _wav(tmp_path / name / f"{index}.wav", both, width=4, channels=2 if name == "s" else 1)
    values, _ = _read(f"wav:{tmp_path}?seconds=0.05&mels=8", (8, 3))
    assert np.allclose(values[0], values[-1], atol=2e-2)


def test_a_sound_of_another_rate_or_form_is_refused(tmp_path: Path) -> None:
    _wav(tmp_path / "a" / "0.wav", [0.0] * 100, rate=8000)
    with pytest.raises(DataError, match=r"0\.wav: has 8000 samples a second; write wav:DIR\?rate=8000"):
        _read(f"wav:{tmp_path}", (40, 98))
    (tmp_path / "a" / "0.wav").write_bytes(b"RIFF" + struct.pack("<I", 4) + b"WAVE")
    with pytest.raises(DataError, match="not a readable WAV file"):
        _read(f"wav:{tmp_path}", (40, 98))
    (tmp_path / "a" / "1.mp3").write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.mp3: not a supported WAV file"):
        _read(f"wav:{tmp_path}", (40, 98))
    with pytest.raises(UsageError, match="'seconds=x' is not between"):
        _read(f"wav:{tmp_path}?seconds=x", (40, 98))


def test_a_text_is_read_by_characters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n ~é" + "x" * 16, encoding="utf-8")
    tokens, labels = _read(f"text:{tmp_path / 'a.txt'}?length=4&step=1", (4,), input_dtype="int64")
    assert tokens[0].tolist() == [0, 1, 95, 96] and labels == [1 + ord("x") - 32] * 12
    tokens, _ = _read(f"text:{tmp_path / 'a.txt'}?length=4&alphabet=bytes", (4,), input_dtype="int64")
    assert tokens[0].tolist() == [10, 32, 126, 0xC3]
    test, _ = _read(f"text:{tmp_path / 'a.txt'}?length=3&step=1", (3,), "test", input_dtype="int64")
    assert len(test) == 1


def test_each_text_of_a_folder_is_a_client(tmp_path: Path) -> None:
    for name, count in (("b", 20), ("a", 30)):
        (tmp_path / f"{name}.txt").write_text(name * count)
    data = open_data(f"text:{tmp_path}?length=4&step=4", split="train", input_shape=(4,), input_dtype="int64")
    assert data.clients is not None and data.clients.names == ("a", "b")
    assert data.clients.ids.tolist() == [0] * 5 + [1] * 3 and data.classes == 97


def test_what_is_wrong_with_a_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\xff")
    for spec, match in (
        (f"text:{tmp_path / 'a.bin'}", "is not UTF-8 text"),
        (f"text:{tmp_path}", "has no .txt file"),
        (f"text:{tmp_path / 'a.bin'}?alphabet=bytes", "has no 65 characters in a row"),
        (f"text:{tmp_path / 'a.bin'}?alphabet=greek", "'alphabet=greek' is unknown"),
        (f"text:{tmp_path / 'a.bin'}?step=0", "'step=0' is not a whole number of at least 1"),
        (f"text:{tmp_path / 'none'}", "No such file"),
    ):
        with pytest.raises(ProflError, match=match):
            _read(spec, (64,), input_dtype="int64")
