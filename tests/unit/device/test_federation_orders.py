"""Orders of a server are untrusted input: no name leads out of the task's folder, and no file is another one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_profiles.errors import DigestError, FormatError
from device_profiles.federation import DeviceQuestion, SentFile, TrainOrder
from edge_runtime.device.federation.orders import read_order
from edge_runtime.device.federation.store import FileStore
from tests.support.federation_client import train_order

_FILE = SentFile(bytes=3, sha256="0" * 64)


def _order(names: list[str], **changed: Any) -> bytes:
    order = msgspec.structs.replace(train_order({}, weights=()), files=dict.fromkeys(names, _FILE), **changed)
    return msgspec.json.encode(order)


def test_an_order_is_read_as_it_was_written() -> None:
    names = ["bundle/manifest.json", "bundle/programs/a.pte", "weights/unit0"]
    order = read_order(_order(names, weights=("weights/unit0",), prefix="3f2a"), TrainOrder)
    assert list(order.files) == names


@pytest.mark.parametrize(
    "name",
    [
        "bundle/../../key",
        "bundle//a",
        "bundle/",
        "bundle",
        "/etc/passwd",
        "bundle/.hidden",
        "bundle/a/b/c/d",
        "other/a",
        "weights/a\nb",
        "weights/" + "a" * 300,
        "bundle/manifest.json/a",
        "bundle\\a",
    ],
)
def test_a_name_that_is_no_place_below_the_task_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"^the server's order: files: ") as caught:
        read_order(_order(["bundle/manifest.json", name]), TrainOrder)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_whatever_is_taken_stays_below_the_folder(name: str) -> None:
    try:
        order = read_order(_order(["bundle/manifest.json", name]), TrainOrder)
    except FormatError:
        return
    for taken in order.files:
        path = Path("task", taken)
        assert ".." not in path.parts
        assert path.parts[:1] == ("task",)
        assert len(path.parts) > 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": ("weights/unit9",)}, "weights: 'weights/unit9' is none of its files"),
        ({"weights": ("bundle/manifest.json",)}, "weights: 'bundle/manifest.json' is none of its files"),
        ({"prefix": "../other"}, "prefix: '../other' cannot name a folder"),
        ({"steps": 3, "epochs": 1}, "steps: cannot be given with epochs"),
    ],
)
def test_an_order_that_contradicts_itself_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_order(_order(["bundle/manifest.json"], **changed), TrainOrder)


def test_an_order_without_a_manifest_is_refused() -> None:
    with pytest.raises(FormatError, match=r"bundle/manifest\.json is missing"):
        read_order(_order(["bundle/programs/a.pte"]), TrainOrder)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_order_are_refused(raw: bytes) -> None:
    for kind in (TrainOrder, DeviceQuestion):
        with pytest.raises(FormatError, match=r"^the server's order: "):
            read_order(raw, kind)


def _writing(data: bytes) -> Any:
    return lambda path: path.write_bytes(data)


def _sent(tmp_path: Path, data: bytes) -> SentFile:
    path = tmp_path / "source"
    path.write_bytes(data)
    return SentFile.of(path)


def test_a_file_is_kept_by_its_content_and_shared(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "files", 1 << 20)
    sent = _sent(tmp_path, b"weights")
    assert not store.has(sent)
    store.add(sent, _writing(b"weights"))
    assert store.has(sent)
    store.put(sent, tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == b"weights"
    assert (tmp_path / "here").stat().st_nlink == 2


def test_another_file_than_the_one_named_is_not_kept(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "files", 1 << 20)
    sent = _sent(tmp_path, b"weights")
    with pytest.raises(DigestError, match="another file"):
        store.add(sent, _writing(b"Weights"))
    assert list((tmp_path / "files").iterdir()) == []


def test_a_kept_file_that_was_damaged_is_found_and_removed(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "files", 1 << 20)
    sent = _sent(tmp_path, b"weights")
    store.add(sent, _writing(b"weights"))
    (tmp_path / "files" / sent.sha256).write_bytes(b"wEights")
    with pytest.raises(DigestError, match="is damaged"):
        store.put(sent, tmp_path / "here")
    assert not store.has(sent)
    assert not (tmp_path / "here").exists()


def test_the_files_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "files", 25)
    files = [_sent(tmp_path, bytes([65 + number]) * 10) for number in range(4)]
    for number, sent in enumerate(files):
        store.add(sent, _writing(bytes([65 + number]) * 10))
        os.utime(tmp_path / "files" / sent.sha256, (number, number))
    store.put(files[0], tmp_path / "used")
    store.trim(keep={files[1].sha256})
    assert [store.has(sent) for sent in files] == [True, True, False, False]


def test_parts_of_files_that_nobody_waits_for_go(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "files", 1 << 20)
    for name in ("a.new.part", "b.new.part"):
        (tmp_path / "files" / name).write_bytes(b"half")
    store.trim(keep={"b"})
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["b.new.part"]
