"""Updates in files: the same values, read a tensor at a time, and a server whose memory does not grow with clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from device_profiles.errors import FormatError
from device_profiles.update import UpdateMetadata
from device_profiles.work import Width
from server.averaging.aggregation import ReceivedUpdate, average
from server.averaging.file_tensors import ChangedTensors, shape_of, values_of
from server.averaging.spool import Spool
from server.fleet.structure import Structure, TrainedTensor
from server.judging.judging import Asked, judge
from tests.support.partitions import blocks_of_one_unit

ROOT = Path(__file__).resolve().parents[3]
METADATA = UpdateMetadata(
    block=0, program="whole", examples=32, steps=1, base_version="v", loss_first=1.0, loss_last=1.0
)


def _update(client: str, **tensors: np.ndarray) -> ReceivedUpdate:
    return ReceivedUpdate(client=client, metadata=METADATA, tensors=tensors)


def test_a_spooled_update_is_an_ordinary_file_of_the_same_values(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    tensors = {
        "w": generator.standard_normal((3, 4, 2), np.float32),
        "turned": generator.standard_normal((3, 4), np.float32).T,
        "one": np.float32(3).reshape(()),
        "none": np.zeros((0, 4), np.float32),
    }
    spooled = Spool(tmp_path).put(_update("a", **tensors)).tensors
    (path,) = tmp_path.iterdir()
    for read in (spooled, load_file(path)):
        assert set(read) == set(tensors)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(read[name], tensor)
            assert read[name].dtype == np.float32 and read[name].shape == tensor.shape
    assert shape_of(spooled, "w") == (3, 4, 2)
    np.testing.assert_array_equal(values_of(spooled, "w", 5, 11), tensors["w"].reshape(-1)[5:11])


def test_two_updates_of_one_client_do_not_write_over_each_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "updates")
    first, second = (spool.put(_update("a", w=np.full(2, value, np.float32))) for value in (1, 2))
    assert first.tensors["w"][0] == 1 and second.tensors["w"][0] == 2
    spool.clear()
    assert not (tmp_path / "updates").exists()


def test_a_file_that_lost_its_end_is_a_line_and_no_crash(tmp_path: Path) -> None:
    spooled = Spool(tmp_path).put(_update("a", w=np.ones(100, np.float32)))
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 40)
    with pytest.raises(FormatError, match="ends 40 bytes too early"):
        spooled.tensors["w"]


def test_a_type_that_no_update_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="tensor w has type complex64"):
        Spool(tmp_path).put(_update("a", w=np.zeros(2, np.complex64)))


def test_a_change_is_made_when_the_tensor_is_read() -> None:
    made: list[int] = []

    def twice(tensor: np.ndarray) -> np.ndarray:
        made.append(1)
        return tensor * 2

    changed = ChangedTensors({"w": np.ones(2), "v": np.ones(3)}, {"w": twice})
    assert shape_of(changed, "w") == (2,) and list(changed) == ["w", "v"] and made == []
    assert changed["w"].tolist() == [2, 2] and changed["v"].tolist() == [1, 1, 1] and made == [1]


@pytest.mark.parametrize("at_once", [1 << 20, 96])
def test_files_are_judged_and_averaged_to_the_bits_of_memory(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one update far beyond the others, one against them, and slices of two sizes."""
    monkeypatch.setattr("server.judging.alike._VALUES_AT_ONCE", at_once)
    generator = np.random.default_rng(3)
    base = {"w": generator.standard_normal((8, 6), np.float32), "bn.running_var": np.ones(8, np.float32)}
    wide, narrow = Width(ratio=1.0), Width(ratio=0.5)
    shapes = {"width-1": (8, 6), "width-0.5": (4, 3)}
    trained = {
        work: {
            "w": TrainedTensor(shape=shape, role="parameter"),
            "bn.running_var": TrainedTensor(shape=shape[:1], role="running_statistic"),
        }
        for work, shape in ((wide, (8, 6)), (narrow, (4, 3)))
    }
    structure = Structure(
        model=tuple(base), partition=blocks_of_one_unit(1), blocks=(frozenset(base),), trained=trained
    )
    direction = generator.standard_normal((8, 6), np.float32)
    updates, asked = [], {}
    for number in range(12):
        work = narrow if number % 3 == 0 else wide
        rows, columns = shapes[work.name]
        far = {1: 5.0, 2: -1.0}.get(number, 1.0)
        noise = 0.3 * generator.standard_normal((rows, columns), np.float32)
        w = base["w"][:rows, :columns] + np.float32(0.01 * far) * (direction[:rows, :columns] + noise)
        update = ReceivedUpdate(
            client=f"c{number}",
            metadata=UpdateMetadata(
                block=0, program=work.name, examples=32, steps=1, base_version="v", loss_first=1.0, loss_last=1
            ),
            tensors={"w": w, "bn.running_var": np.float32(1 + 0.1 * generator.random(rows))},
            rows={"w": np.arange(rows) % 2 == 0} if number == 4 else {},
        )
        updates.append(update)
        asked[update.client] = Asked(work=work, batch=32, examples=32, steps=1)
    spool = Spool(tmp_path)
    results: list[Any] = []
    for given in (updates, [spool.put(update) for update in updates]):
        accepted, rejected = judge(given, asked, structure, "v", base)
        results.append((rejected, {update.client: update.cut for update in accepted}, average(accepted, base)))
    assert results[0][:2] == results[1][:2]
    assert "c2" in results[0][0] and results[0][1]["c1"], "somebody is rejected, somebody cut down"
    for name, tensor in results[0][2].items():
        np.testing.assert_array_equal(results[1][2][name], tensor)


def test_the_servers_memory_does_not_grow_with_the_number_of_clients() -> None:
    measured = {}
    for count in (4, 24):
        command = [sys.executable, "-m", "tools.bench.server_memory", "--updates", str(count), "--size", "8"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        measured[count] = json.loads(done.stdout)
        assert measured[count]["accepted"] == count and measured[count]["cut"] == 1
    grown = measured[24]["peak_bytes"] - measured[4]["peak_bytes"]
    assert grown < measured[4]["update_bytes"], measured
