"""The safetensors reader and writer against the safetensors package, and against damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from device_profiles.errors import FormatError
from edge_runtime.device.prepare.tensors import TensorFile
from edge_runtime.device.worker import files


def write_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    described = [(name, array.dtype.name, memoryview(array)) for name, array in tensors.items()]
    files.write_tensors(str(path), described, metadata)


def _tensors() -> dict[str, np.ndarray]:
    return {
        "stage.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "count": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "bias": np.array([1.5, -2.0, 3.25], np.float32),
    }


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    write_tensors(path, _tensors(), {"profl": "hello"})
    loaded = load_file(path)
    assert set(loaded) == set(_tensors())
    for name, expected in _tensors().items():
        assert loaded[name].dtype == expected.dtype
        np.testing.assert_array_equal(loaded[name], expected)


def test_we_read_what_the_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file(_tensors(), path, metadata={"profl": "hello"})
    source = TensorFile(path)
    assert source.metadata == {"profl": "hello"}
    raw = path.read_bytes()
    for name, expected in _tensors().items():
        source.check(name, expected.dtype.name, expected.shape)
        place, offset, size = source.place(name)
        assert Path(place) == path
        assert raw[offset : offset + size] == expected.tobytes()


def test_another_shape_or_type_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    write_tensors(path, _tensors())
    source = TensorFile(path)
    with pytest.raises(FormatError, match=r"tensor 'bias' is float32 \[3\], expected float32 \[4\]"):
        source.check("bias", "float32", (4,))
    with pytest.raises(FormatError, match="expected int64"):
        source.check("bias", "int64", (3,))
    with pytest.raises(FormatError, match="tensor 'absent' is missing"):
        source.check("absent", "float32", (3,))


def test_a_type_that_is_not_known_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    with pytest.raises(FormatError, match="float16"):
        write_tensors(path, {"x": np.zeros(2, np.float16)})
    assert list(tmp_path.iterdir()) == []


def _file(header: object, data: bytes, *, length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(encoded) if length is None else length).to_bytes(8, "little") + encoded + data


_ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "header does not fit"),
        (b"\x01\x00", "header does not fit"),
        (_file({}, b"", length=1 << 60), "header does not fit"),
        (_file(b"{", b""), "not a safetensors file"),
        (_file(b"[]", b""), "not a safetensors file"),
        (_file(b"\xff\xfe", b""), "not a safetensors file"),
        (_file({"x": _ENTRY}, b"1234567"), "describes 8 bytes"),
        (_file({"x": _ENTRY}, b"123456789"), "describes 8 bytes"),
        (_file({"x": {**_ENTRY, "dtype": "F16"}}, bytes(8)), "is float16; weights are float32: convert"),
        (_file({"x": {**_ENTRY, "dtype": "I32"}}, bytes(8)), "only F32, BF16 and I64"),
        (_file({"x": {**_ENTRY, "shape": [3]}}, bytes(8)), "do not fit its shape"),
        (_file({"x": {**_ENTRY, "shape": [-1, -2]}}, bytes(8)), "negative extent"),
        (_file({"x": {**_ENTRY, "data_offsets": [4, 12]}}, bytes(12)), "do not fit its shape"),
        (_file({"x": _ENTRY, "y": _ENTRY}, bytes(8)), "do not fit its shape"),
        (_file({"x": {**_ENTRY, "data_offsets": [8, 0]}}, bytes(8)), "do not fit its shape"),
        (_file({"x": {**_ENTRY, "extra": 1}}, bytes(8)), "not a safetensors file"),
        (_file({"x": {"dtype": "F32", "shape": [2]}}, bytes(8)), "not a safetensors file"),
        (_file({"x": _ENTRY, "__metadata__": {"a": 1}}, bytes(8)), "not a safetensors file"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=message) as refusal:
        TensorFile(path)
    assert "damaged.safetensors" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_truncation_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    write_tensors(path, _tensors())
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(FormatError):
            TensorFile(path)
