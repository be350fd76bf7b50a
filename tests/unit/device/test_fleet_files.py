"""Files of a message that break off, are another one, or find the disk full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed")

from device_profiles.errors import DigestError, ExecutionError, FormatError
from edge_runtime.device.fleet_api.link import Link
from tests.support.fake_superlink import FakeSuperLink, pulled, sent

BIG = os.urandom(11 << 20)


@pytest.mark.parametrize("cut", [0, 3, 100_000, (5 << 20) - 1])
def test_a_connection_that_is_cut_in_a_chunk_is_no_loss(
    link: Link, fake: FakeSuperLink, tmp_path: Path, cut: int
) -> None:
    incoming = pulled(link, fake, {"a": BIG})
    file = link.files(incoming)["a"]
    expected = sent(tmp_path, BIG)
    fetched = []
    real = fake.answer

    def answer(path: str, body: bytes) -> object:
        if path == "pull-object":
            fetched.append(body)
            if len(fetched) == 3:  # the Array, a chunk, and this one
                fake.cut["pull-object"] = cut
        return real(path, body)

    fake.answer = answer  # type: ignore[method-assign, assignment]
    link.fetch(incoming, file, tmp_path / "a", expected)
    assert (tmp_path / "a").read_bytes() == BIG
    assert len(fetched) == 1 + 3 + 1


def test_chunks_of_an_earlier_attempt_are_not_fetched_again(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {"a": BIG})
    file = link.files(incoming)["a"]
    (tmp_path / "a.part").write_bytes(BIG[: 7 << 20])  # one whole chunk, and a part of the next
    fake.pulled.clear()
    link.fetch(incoming, file, tmp_path / "a", sent(tmp_path, BIG))
    assert (tmp_path / "a").read_bytes() == BIG
    assert len(fake.pulled) == 1 + 2


def test_what_an_earlier_attempt_left_damaged_is_fetched_again(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {"a": BIG})
    (tmp_path / "a.part").write_bytes(b"x" + BIG[1:] + b"behind")
    link.fetch(incoming, link.files(incoming)["a"], tmp_path / "a", sent(tmp_path, BIG))
    assert (tmp_path / "a").read_bytes() == BIG


def test_a_chunk_that_occurs_twice_is_fetched_once(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    data = bytes(16 << 20)
    incoming = pulled(link, fake, {"a": data})
    file = link.files(incoming)["a"]
    fake.pulled.clear()
    link.fetch(incoming, file, tmp_path / "a", sent(tmp_path, data))
    assert (tmp_path / "a").read_bytes() == data
    assert len(fake.pulled) == 1 + 2


def test_another_file_than_the_order_states_is_refused(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {"a": b"hostile", "b": b"longer than stated"})
    files = link.files(incoming)
    expected = sent(tmp_path, b"hostilf")
    with pytest.raises(DigestError, match="another size or SHA-256"):
        link.fetch(incoming, files["a"], tmp_path / "a", expected)
    with pytest.raises(FormatError, match="larger than the 7 bytes"):
        link.fetch(incoming, files["b"], tmp_path / "b", expected)
    assert [path.name for path in tmp_path.iterdir()] == ["expected"]


def test_a_chunk_that_is_another_one_is_refused(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {"a": b"right"})
    (chunk,) = [name for name, content in fake.objects.items() if content == b"ArrayChunk  5\0right"]
    for content, said in (
        (b"ArrayChunk  5\0wrong", "another SHA-256"),
        (b"ArrayChunk  9\0right", "is no ArrayChunk"),
        (b"Array  5\0right", "is no ArrayChunk"),
        (b"x" * 500, "is no ArrayChunk"),
    ):
        fake.objects[chunk] = content
        with pytest.raises(FormatError, match=said):
            link.fetch(incoming, link.files(incoming)["a"], tmp_path / "a", sent(tmp_path, b"right"))
    assert not (tmp_path / "a").exists()


def test_an_array_that_is_no_file_is_refused(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {})
    array = fake.put_file(b"x", stype="numpy.ndarray")
    with pytest.raises(FormatError, match=r"numpy\.ndarray"):
        link.fetch(incoming, array, tmp_path / "a", sent(tmp_path, b"x"))


def test_a_small_object_is_bounded_and_verified(link: Link, fake: FakeSuperLink) -> None:
    incoming = pulled(link, fake, {})
    fake.objects[incoming.message_id] = b"Message  0\0"
    with pytest.raises(DigestError, match="another SHA-256"):
        link.order(incoming)
    fake.objects[incoming.message_id] = bytes(5 << 20)
    with pytest.raises(FormatError, match="5242880 bytes, where 4194304 are the most"):
        link.order(incoming)


def test_a_disk_that_is_full_is_one_line(
    link: Link, fake: FakeSuperLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = pulled(link, fake, {"a": BIG})
    file = link.files(incoming)["a"]
    real = os.pwrite

    def full(handle: int, data: bytes, place: int) -> int:
        if place > 6 << 20:
            raise OSError(28, "No space left on device")
        return real(handle, data, place)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ExecutionError, match=r"a: cannot be written: No space left on device"):
        link.fetch(incoming, file, tmp_path / "a", sent(tmp_path, BIG))
    assert (tmp_path / "a.part").stat().st_size == 5 << 20
    monkeypatch.undo()
    link.fetch(incoming, file, tmp_path / "a", sent(tmp_path, BIG))
    assert (tmp_path / "a").read_bytes() == BIG


def test_objects_that_are_still_on_their_way_are_waited_for(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {"a": b"late"})
    fake.late = dict.fromkeys(fake.objects, 1)
    link.fetch(incoming, link.files(incoming)["a"], tmp_path / "a", sent(tmp_path, b"late"))
    assert (tmp_path / "a").read_bytes() == b"late"
