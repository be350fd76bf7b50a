"""Whatever a client sends: an update, a report, or anything else, each is refused with one plain line."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from device_profiles.errors import FormatError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from device_profiles.task import Result, Task
from device_profiles.update import UpdateMetadata
from device_profiles.work import grow
from edge_runtime.device.limits import processes as limits
from server.engines.local import process as local
from server.engines.local.engine import LocalEngine
from server.fleet.client import alike
from server.fleet.fleet import TrainingSettings
from server.fleet.structure import Structure
from server.judging.strangers import read_answer, read_update
from server.rounds.seam import Failed, Updated

STRUCTURE = Structure.of(read_json(Path(__file__).resolve().parents[2] / "golden" / "manifest.json", Manifest))
WORK = grow(STRUCTURE.partition, 1)
EXPECTED = STRUCTURE.tensors(WORK)
METADATA: dict[str, Any] = {
    "block": 1,
    "program": "grow-block1",
    "examples": 5,
    "steps": 1,
    "base_version": "v",
    "loss_first": 1.0,
    "loss_last": 1.0,
}
REPORT = {"loss_first": 1.0, "loss_last": 0.5, "predicted_peak_bytes": 10, "measured_peak_bytes": 9, "more": []}


def _tensors() -> dict[str, np.ndarray]:
    return {name: np.full(tensor.shape, 2, np.float32) for name, tensor in EXPECTED.items()}


def _sound() -> bytes:
    return bytes(save(_tensors(), metadata=UpdateMetadata(**METADATA).to_strings()))


def _header(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A sound update whose header was changed."""
    raw = _sound()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def _metadata(**changes: Any) -> bytes:
    text = json.dumps({k: v for k, v in (METADATA | changes).items() if v is not ...})
    return _header(lambda header: header.update(__metadata__={"profl": text}))


def _typed(dtype: str) -> bytes:
    return _header(lambda header: header[next(iter(EXPECTED))].update(dtype=dtype))


def _of_first(**changes: Any) -> bytes:
    return _header(lambda header: header[next(iter(EXPECTED))].update(changes))


WRONG_UPDATES = {
    "nothing": (b"", "0 bytes and is not"),
    "garbage": (b"garbage" * 99, "its header claims"),
    "a header of the whole address space": (b"\xff" * 16, "its header claims"),
    "no JSON": (struct.pack("<Q", 5) + b"hello", "header: JSON is malformed"),
    "a list": (struct.pack("<Q", 2) + b"[]", "header: is a list, must be an object"),
    "a deep list": (struct.pack("<Q", 60_000) + b'{"a":' + b"[" * 59_995, "header: "),
    "truncated": (_sound()[:-5], "it is not whole"),
    "longer": (_sound() + b"more", "it is not whole"),
    "bfloat16": (_typed("BF16"), "has type BF16, not F32"),
    "float8": (_typed("F8_E4M3"), "has type F8_E4M3, not F32"),
    "float16": (_typed("F16"), "has type F16, not F32"),
    "an odd type": (_typed("\x1b[2J\n" * 400), "has type [2J"),
    "a type that is no text": (_of_first(dtype=3), "is a whole number, must be a text"),
    "another shape": (_of_first(shape=[1]), "has shape (1,), not"),
    "a shape below zero": (_of_first(shape=[-1]), "shape[0]: must be at least 0"),
    "a shape of 2**70": (_of_first(shape=[2**70]), "tensor "),
    "a place outside": (_of_first(data_offsets=[0, 2**50]), "is not where it should be"),
    "an odd name": (_header(lambda h: h.update({"\x1b[31mred\n": h[next(iter(EXPECTED))]})), "tensor [31mred is"),
    "a missing tensor": (_header(lambda h: h.pop(next(iter(EXPECTED)))), "is missing or not of this block"),
    "no metadata": (_header(lambda h: h.pop("__metadata__")), "no 'profl' metadata"),
    "metadata of numbers": (
        _header(lambda h: h.update(__metadata__={"profl": 3})),
        "metadata: is a whole number, must be a text",
    ),
    "an absent field": (_metadata(examples=...), "examples: is missing"),
    "an unknown field": (_metadata(more=1), "more: is not known here"),
    "steps below zero": (_metadata(steps=-1), "-1 steps cannot be"),
    "2**80 examples": (_metadata(examples=2**80), "metadata: "),
    "an infinite loss": (_metadata(loss_last=float("inf")), "metadata: "),
    "no number": (_metadata(loss_first=float("nan")), "metadata: "),
    "an odd program": (_metadata(program="grow\x1b[2J\nblock1"), "must be short names"),
    "a long version": (_metadata(base_version="v" * 30_000), "must be short names"),
}


@pytest.mark.parametrize("name", WRONG_UPDATES)
def test_a_wrong_update_is_one_plain_line(name: str, tmp_path: Path) -> None:
    content, said = WRONG_UPDATES[name]
    path = tmp_path / "u.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_update("a", path, EXPECTED)
    text = str(caught.value)
    assert said in text and text.startswith(str(path)) and text.isprintable() and len(text) < 700


def test_a_sound_update_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "u.safetensors"
    path.write_bytes(_sound())
    for expected in (EXPECTED, None):
        update = read_update("a", path, expected)
        assert update.metadata == UpdateMetadata(**METADATA) and set(update.tensors) == set(EXPECTED)
        for name, tensor in _tensors().items():
            np.testing.assert_array_equal(update.tensors[name], tensor)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    folder, fifo, link, sparse = (tmp_path / name for name in ("folder", "fifo", "link", "sparse"))
    folder.mkdir()
    os.mkfifo(fifo)
    link.symlink_to("/dev/zero")
    with sparse.open("wb") as file:
        file.truncate(40 << 30)
    said = {
        folder: "not a regular file",
        fifo: "not a regular file",
        link: "symbolic link",
        sparse: "42949672960 bytes",
    }
    for path, reason in (said | {tmp_path / "none": "no update was written"}).items():
        with pytest.raises(FormatError, match=reason):
            read_update("a", path, EXPECTED)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[1]", b"3", b"hello", b"{}", b'{"a": NaN}', b"\xff\xfe", b" " * (1 << 21), b"[" * 100_000]
    + [json.dumps(REPORT | change).encode() for change in ({"loss_last": "x"}, {"measured_peak_bytes": -1})]
    + [json.dumps({k: v for k, v in REPORT.items() if k != "loss_last"}).encode()]
    + [json.dumps(REPORT).replace("0.5", "1e999").encode()],
)
def test_a_wrong_report_is_one_plain_line(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="its report") as caught:
        read_answer(path)
    assert str(caught.value).isprintable()


CLIENT = """
import json, os, pathlib, signal, sys, time
output, sound, report = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
"""
CLIENTS = {
    "output.write_bytes(sound.read_bytes()); print(report)": "ok",
    "output.write_bytes(sound.read_bytes()); print([1])": "unreadable answer: its report: is a list, must be an object",
    "output.write_bytes(sound.read_bytes()); print('x' * (1 << 22))": "unreadable answer: its report is longer than",
    "print(report)": "no update was written",
    "output.mkdir(); print(report)": "not a regular file",
    "os.mkfifo(output); print(report)": "not a regular file",
    "open(output, 'wb').truncate(40 << 30); print(report)": "has 42949672960 bytes",
    "output.write_bytes(sound.read_bytes()[:-9]); print(report)": "it is not whole",
    "os.kill(os.getpid(), signal.SIGSEGV)": "died by signal 11",
    "time.sleep(60)": "no answer within 6 s",
    "sys.exit('\\x1b[2Jno\\u2028way')": "[2Jno",
    "sys.stderr.write('e' * (1 << 22)); sys.exit(3)": "e...",
}


def _engine(folder: Path, seconds: float) -> LocalEngine:
    return LocalEngine(
        folder / "bundle",
        clients=alike({"a": 1 << 30, "b": 1 << 30}, {}),
        data={"a": folder / "data.npz", "b": folder / "data.npz"},
        limits={"a": 1 << 30, "b": 1 << 30},
        settings=TrainingSettings(timeout_seconds=seconds),
        cached={"a": frozenset(), "b": frozenset()},
        folder=folder / "clients",
        structure=STRUCTURE,
    )


def _ask(engine: LocalEngine, folder: Path) -> tuple[list[Result], int]:
    weights = folder / "weights.safetensors"
    weights.write_bytes(b"w")
    tasks = [
        Task(client=name, work=WORK, weights=weights, base_version="v", steps=1, epochs=None, learning_rate=0.1, seed=0)
        for name in "ab"
    ]
    engine.submit(tasks)
    events = [event for event in engine.events(None) if isinstance(event, Updated | Failed)]
    results = {event.task.client: event.result for event in events}
    return [results["a"], results["b"]], sum(isinstance(event, Updated) for event in events)


@pytest.mark.parametrize("behaviour", CLIENTS)
def test_whatever_a_client_does_is_its_own_result(
    behaviour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tmp_path / "sound"
    sound.write_bytes(_sound())

    def start(argv: list[str], *, limit_bytes: int | None, **options: Any) -> limits.LimitedProcess:
        output = argv[argv.index("-o") + 1]
        body = behaviour if output.endswith("a.safetensors") else next(iter(CLIENTS))
        command = [sys.executable, "-c", CLIENT + body, output, str(sound), json.dumps(REPORT)]
        return limits.start_limited(command, limit_bytes=None, **options)

    monkeypatch.setattr(local, "start_limited", start)
    sleeps = "sleep" in behaviour
    engine = _engine(tmp_path, 6.0 if sleeps else 60.0)
    # Twice: what the first round left must not stand in the way of the next.
    for _ in range(1 if sleeps else 2):
        results, delivered = _ask(engine, tmp_path)
        said = CLIENTS[behaviour]
        assert said in results[0].status and results[0].status.isprintable() and len(results[0].status) < 700
        assert results[1].status == "ok" and delivered == (2 if said == "ok" else 1)


def test_a_client_that_cannot_be_started_is_its_own_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(argv: list[str], **options: Any) -> limits.LimitedProcess:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(local, "start_limited", start)
    results, delivered = _ask(_engine(tmp_path, 60.0), tmp_path)
    assert delivered == 0 and all("could not be run: [Errno 11]" in result.status for result in results)
