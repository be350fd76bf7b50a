"""The server's process ends at every point of a run, as by kill -9, and is resumed: no round is lost or doubled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from device_profiles.errors import DigestError, FormatError
from server.rounds.records import RoundRecord, StepRecord
from server.rounds.run_state import RunFolder
from tests.support.fake_run import FakeEngine, initial_weights, run

_KILLED = 9


@pytest.fixture(autouse=True, scope="module")
def _without_waiting_for_the_disk() -> Iterator[None]:
    # A process that is killed loses nothing that it wrote; only a machine that loses its power does.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


def _until(folder: Path, point: int) -> bool:
    """Run in a process that ends at its `point`-th chance, without any clean-up; whether it got to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            left = point

            def tick() -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(_KILLED)

            _tick_at_every_file_operation(tick, pytest.MonkeyPatch())
            run(folder, FakeEngine(tick=tick))
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _KILLED), f"ended with {status}"
    return status == 0


def _tick_at_every_file_operation(tick: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Before every rename, removal and flush: what one of them leaves is what the next one finds."""

    def behind(function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            tick()
            return function(*arguments, **options)

        return wrapped

    patch.setattr(os, "replace", behind(os.replace))
    patch.setattr(Path, "unlink", behind(Path.unlink))
    patch.setattr(os, "fsync", behind(os.fsync))


def _told(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_bytes().splitlines()]
    for line in lines:
        del line["seconds"]
    return lines


def _weights(folder: Path) -> bytes:
    (path,) = (folder / "weights").iterdir()
    return path.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder, FakeEngine())
    assert [line["round"] for line in _told(folder)] == [1, 2, 3, 4, 5, 6]
    return folder


def _assert_same(folder: Path, undisturbed: Path) -> None:
    assert _told(folder) == _told(undisturbed)
    assert _weights(folder) == _weights(undisturbed)
    state = RunFolder(folder).load()[0]
    assert state.finished and state.steps == RunFolder(undisturbed).load()[0].steps


def test_killed_at_every_point_and_resumed_it_is_the_undisturbed_run(undisturbed: Path, tmp_path: Path) -> None:
    """What a killed process leaves is what its folder holds at that moment: one run is copied at every point."""
    running, points = tmp_path / "running", []
    running.mkdir()

    def copy() -> None:
        points.append(tmp_path / f"killed-{len(points)}")
        shutil.copytree(running, points[-1])

    with pytest.MonkeyPatch.context() as patch:
        _tick_at_every_file_operation(copy, patch)
        run(running, FakeEngine(tick=copy))
    for folder in points:
        run(folder, FakeEngine())
        _assert_same(folder, undisturbed)
        shutil.rmtree(folder)
    assert len(points) > 100, "the run has more points than these"


@pytest.mark.parametrize("every", [23, 31, 42])
def test_killed_again_and_again_it_still_ends_the_same(undisturbed: Path, tmp_path: Path, every: int) -> None:
    kills = 0
    while not _until(tmp_path, every):
        kills += 1
        assert kills < 100
    assert kills >= 2
    _assert_same(tmp_path, undisturbed)


def test_a_resumed_run_keeps_the_shape_of_every_tensor(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    _, resumed = RunFolder(tmp_path).load()
    assert {name: tensor.shape for name, tensor in resumed.items()} == {
        name: tensor.shape for name, tensor in initial_weights().items()
    }


def test_a_mean_is_of_those_who_delivered_and_were_not_rejected(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    record = RunFolder(tmp_path).records()[0]
    assert record.taken == ["a", "b", "c"]
    assert msgspec.structs.replace(record, rejected={"b": "odd"}).taken == ["a", "c"]
    failed = msgspec.structs.replace(record.clients[0], status="failed")
    assert msgspec.structs.replace(record, clients=(failed, *record.clients[1:])).taken == ["b", "c"]


def test_a_finished_run_that_is_resumed_trains_nothing(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    engine = FakeEngine()
    state, _ = run(tmp_path, engine)
    assert state.round == 6 and engine.calls == []


def test_what_an_earlier_release_did_not_write_counts_as_nothing() -> None:
    stage = {"stage": "grow", "block": 1, "rounds": 2, "froze_because": "round cap 2", "accuracy": 0.5}
    assert msgspec.convert(stage, StepRecord).participation == 0.0
    empty = dict.fromkeys(("loss", "accuracy", "effective_movement", "slope"))
    counts = dict.fromkeys(("round", "block", "round_of_step", "participation", "bytes_down", "bytes_up", "seconds"), 1)
    line = msgspec.convert({**empty, **counts, "stage": "grow", "clients": (), "rejected": {}}, RoundRecord)
    assert not line.failed and not (line.repeated or line.late or line.cut or line.stopped_early or line.work)


@pytest.mark.parametrize("unknown", [("rate_halvings",), ("rate_halvings", "plan")])
def test_a_state_of_a_release_that_knew_no_plans_or_halvings_goes_on(unknown: tuple[str, ...], tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    path = tmp_path / "state.json"
    values = {**json.loads(path.read_text()), "state_sha256": ""}
    for key in unknown:
        del values[key]
    # Their digests were made of a state without a plan of 0.
    values.pop("plan", None)
    values["state_sha256"] = sha256(msgspec.json.encode(values)).hexdigest()
    path.write_text(json.dumps(values))
    assert RunFolder(tmp_path).load()[0].plan == 0


def test_a_folder_knows_the_plan_of_its_state_and_weights_are_named_by_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.plan == 0
    state, weights = run(tmp_path, FakeEngine())
    assert folder.plan == 0 and folder.weights_path(state).name == "000006.safetensors"
    assert folder.optimizer_state(state) == {}
    saved = folder.save(msgspec.structs.replace(state, plan=2), weights, None)
    assert folder.plan == 2 and folder.weights_path(saved).name == "000006-2.safetensors"
    assert folder.load()[0].plan == 2


def test_what_the_servers_optimizer_kept_is_read_back_and_refused_where_it_is_another(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    state, weights = run(tmp_path, FakeEngine())
    moments = {"m.w": np.full(3, 0.5)}
    saved = folder.save(state, weights, None, moments)
    np.testing.assert_array_equal(folder.optimizer_state(saved)["m.w"], moments["m.w"])
    path = folder.optimizer_path(saved.round)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(FormatError, match=rf"{path.name}: missing or not the file that state\.json names"):
        folder.optimizer_state(saved)
    path.unlink()
    with pytest.raises(FormatError, match=rf"{path.name}: missing or not the file that state\.json names"):
        folder.optimizer_state(saved)


def test_a_state_with_a_number_below_zero_is_refused(tmp_path: Path) -> None:
    state, _ = run(tmp_path, FakeEngine())
    msgspec.structs.replace(state, stage=0).sealed().check("state.json")
    with pytest.raises(FormatError, match=r"state\.json: stage is -1; restore the file"):
        msgspec.structs.replace(state, stage=-1).sealed().check("state.json")


def test_a_half_written_line_is_cut_off(undisturbed: Path, tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    with (tmp_path / "rounds.jsonl").open("ab") as lines:
        lines.write(b'{"round":7,"sta')
    RunFolder(tmp_path).load()
    _assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "weights" / "000006.safetensors").write_bytes(b"x"), "000006.safetensors"),
        (lambda folder: (folder / "weights" / "000006.safetensors").unlink(), "000006.safetensors"),
        (lambda folder: (folder / "rounds.jsonl").write_bytes(b"{}\n"), "rounds.jsonl: shorter"),
        (lambda folder: (folder / "rounds.jsonl").unlink(), "rounds.jsonl: shorter"),
        (lambda folder: (folder / "state.json").write_bytes(b'{"round":'), "state.json"),
    ],
)
def test_a_damaged_state_is_refused_by_the_name_of_its_file(damage: Any, message: str, tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    damage(tmp_path)
    with pytest.raises(FormatError, match=message):
        RunFolder(tmp_path).load()


@pytest.mark.parametrize(
    "edit",
    [
        {"round": 3},
        {"stage": 0},
        {"finished": False},
        {"rounds_bytes": 1},
        {"settings_sha256": "0" * 64},
        {"steps": []},
        {"state_sha256": "1" * 64},
    ],
)
def test_an_edited_state_is_one_line(edit: dict[str, Any], tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    path = tmp_path / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(DigestError, match=r"state\.json: is damaged or was edited: .*; restore it") as raised:
        RunFolder(tmp_path).load()
    assert "\n" not in str(raised.value)


def test_a_state_of_an_earlier_release_has_no_digest_and_is_continued(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    path = tmp_path / "state.json"
    saved = json.loads(path.read_text())
    assert len(saved.pop("state_sha256")) == 64
    path.write_text(json.dumps(saved))
    state, _ = run(tmp_path, FakeEngine())
    assert state.round == 6 and state.finished


def test_the_state_after_a_failed_round_is_sealed_as_well(tmp_path: Path) -> None:
    state, _ = run(tmp_path, FakeEngine())
    folder = RunFolder(tmp_path)
    folder.save_failure(state, msgspec.structs.replace(folder.records()[-1], failed=True))
    loaded, _ = folder.load()
    assert loaded.rounds_bytes > state.rounds_bytes and len(folder.failures()) == 1
