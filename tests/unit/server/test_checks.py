"""Runs that cannot be are refused before their first round, and leave the folder to others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from device_profiles.errors import DataError, ExecutionError, FormatError, UsageError
from device_profiles.work import distill, grow
from server.cli import cli
from server.engines.prepared import PreparedRun
from server.fleet.client import alike
from server.fleet.fleet import DataSettings, Fleet, MethodSettings, TrainingSettings
from server.fleet.model import ModelSettings
from server.fleet.population import ClientSettings
from server.fleet.reading import fleet_of
from server.fleet.structure import Structure
from server.methods import create_method
from server.planner.assignment import BestHeld
from server.rounds.checks import check_data, check_settings, check_stages
from server.rounds.observer import Observer
from server.running.run_fleet import run_fleet
from server.running.settings import NEWER_SETTINGS, settings_sha256
from tests.support.fake_run import CLIENTS, MANIFEST, FakeEngine, FakeEvaluator, clients_of, initial_weights
from tests.support.fake_run import fleet_of as fake_fleet
from tests.support.partitions import blocks_of_one_unit


def _fleet(batch: int = 32, data: DataSettings | None = None, **training: Any) -> Fleet:
    fleet = fake_fleet(training=TrainingSettings(**training))
    model = msgspec.structs.replace(fleet.model, batch=batch)
    return msgspec.structs.replace(fleet, model=model, data=data or fleet.data)


@pytest.mark.parametrize(
    ("training", "engine", "message"),
    [
        ({"min_clients": 4}, "local", r"training\.min_clients 4: the fleet has 3 clients"),
        ({"min_clients": 3, "clients_per_round": 2}, "local", r"training\.min_clients 3: .*clients_per_round draws 2"),
        ({"max_seconds": 5.0}, "simulation", r"training\.max_seconds 5: clients of --engine simulation keep no time"),
        ({"max_seconds": 600.0}, "local", r"training\.max_seconds 600: .*timeout_seconds 600"),
        ({"spare": 1}, "local", r"training\.spare 1: every client is drawn already; give training\.clients_per_round"),
        (
            {"cache_prefix": "int8"},
            "flower",
            r"training\.cache_prefix int8: devices of --engine flower keep no",
        ),
    ],
)
def test_settings_that_no_round_can_meet_are_refused(training: dict[str, Any], engine: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        check_settings(_fleet(**training), engine)
    assert "\n" not in str(raised.value)


def test_what_contradicts_itself_in_a_fleet_file_is_refused_by_the_name_of_the_file() -> None:
    values = {
        "model": {"name": "cnn"},
        "data": {"sources": ["digits"]},
        "population": {"count": 4},
        "training": {"clients_per_round": 2, "min_clients": 3},
    }
    with pytest.raises(FormatError, match=r"--fleet fleet\.toml: training\.min_clients 3: .* draws 2 each round"):
        fleet_of(values, Path("fleet.toml"))


def test_the_file_of_a_federation_names_no_clients_and_others_must() -> None:
    values: dict[str, Any] = {"model": {"name": "cnn"}, "data": {"sources": ["digits"]}, "training": {"min_clients": 9}}
    fleet = fleet_of(values, Path("fleet.toml"), joining=True)
    check_settings(fleet, "flower")
    with pytest.raises(FormatError, match=r"--fleet fleet\.toml: write either \[\[clients\]\]"):
        fleet_of(values, Path("fleet.toml"))
    with pytest.raises(FormatError, match=r"--fleet fleet\.toml: the clients of --engine flower are the devices"):
        fleet_of(values | {"population": {"count": 4}}, Path("fleet.toml"), joining=True)


def test_settings_that_just_can_be_met_are_taken() -> None:
    check_settings(_fleet(min_clients=3, clients_per_round=3, max_seconds=599.0), "local")


def test_a_batch_that_too_few_clients_can_fill_is_refused(tmp_path: Path) -> None:
    labels = np.arange(60) % 2
    np.savez(tmp_path / "data.npz", images=np.zeros((60, 3, 8, 8), np.uint8), labels=labels)
    data = DataSettings(sources=(f"npz:{tmp_path / 'data.npz'}",))
    check_data(_fleet(20, data, min_clients=3))
    with pytest.raises(UsageError, match=r"model\.batch 21: 0 of 3 clients have as many examples \(at most 20\)"):
        check_data(_fleet(21, data))


def test_a_stage_behind_others_that_too_few_hold_is_refused_as_the_first_is() -> None:
    settings = MethodSettings(shrinking=True)
    fleet = msgspec.structs.replace(_fleet(), method=settings)
    partition = blocks_of_one_unit(3)
    needs = {kind(partition, block).name: 1 for kind in (grow, distill) for block in (2, 3)}
    needs[grow(partition, 1).name] = 9
    clients = alike(dict.fromkeys(CLIENTS, 5), needs)
    stages = create_method(settings).stages(fleet, partition, clients)
    with pytest.raises(
        ExecutionError, match=r"grow 1: 0 of 3 clients hold the promise of block 1, training\.min_clients"
    ):
        check_stages(fleet, stages, clients, BestHeld())


def test_steps_and_epochs_together_are_refused() -> None:
    values = {
        "model": {"name": "cnn"},
        "data": {"sources": ["digits"]},
        "population": {"count": 2},
        "training": {"steps": 2, "epochs": 1},
    }
    with pytest.raises(FormatError, match=r"fleet\.toml: training\.steps cannot be combined with training\.epochs"):
        fleet_of(values, Path("fleet.toml"))
    del values["training"]["steps"]  # type: ignore[attr-defined]  # a dictionary of the literal above
    assert fleet_of(values, Path("fleet.toml")).training.epochs == 1


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start a run in `tmp_path / "run"` whose engine computes instead of training, on real digits."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

    def prepare(fleet: Fleet, output: Path, note: Any, *, compare_whole: bool) -> PreparedRun:
        (output / "bundle").mkdir(exist_ok=True)
        (output / "bundle" / "manifest.json").write_text(fleet.model.name)
        there = clients_of({client.name: int(client.limit_bytes) for client in fleet.clients})
        return PreparedRun(
            engine=FakeEngine(there=there),
            evaluator=FakeEvaluator(),
            structure=Structure.of(MANIFEST),
            partition=MANIFEST.partition,
            model=MANIFEST.model,
            initial_weights=initial_weights,
            data="digits",
        )

    monkeypatch.setattr("server.engines.local.setup.prepare_local", prepare)

    def go(fleet: Fleet, *, resume: bool = False) -> Any:
        return run_fleet(fleet, tmp_path / "run", resume=resume, observer=Observer(), note=lambda text: None)

    return go


def _digits(**training: Any) -> Fleet:
    return _fleet(data=DataSettings(sources=("digits",)), **training)


def test_what_is_refused_by_its_settings_or_data_leaves_no_folder(start: Any, tmp_path: Path) -> None:
    for fleet in (
        _digits(min_clients=4),
        _fleet(data=DataSettings(sources=("npz:/nowhere.npz",))),
        _digits(batch=1000),
    ):
        with pytest.raises((UsageError, DataError)):
            start(fleet)
        assert not (tmp_path / "run").exists()


def _too_small() -> Fleet:
    clients = tuple(ClientSettings(name=name, limit_mb=0.5) for name in CLIENTS)
    return msgspec.structs.replace(_digits(), named=clients)


def test_a_folder_in_which_a_start_was_refused_takes_another_fleet(start: Any, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="grow 1: 0 of 3 clients"):
        start(_too_small())
    run = tmp_path / "run"
    assert (run / "bundle").is_dir() and not (run / "state.json").exists()
    (run / "bundle" / "stale").touch()
    (run / ".plan.json.abc").touch()  # what a killed start had not finished
    assert start(_digits()).finished
    assert not (run / ".plan.json.abc").exists()
    assert not (run / "bundle" / "stale").exists(), "a bundle of the refused fleet was kept"


def test_what_a_refused_start_prepared_serves_the_same_fleet_again(start: Any, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ExecutionError, match="grow 1: 0 of 3 clients"):
            start(_too_small())
        (tmp_path / "run" / "bundle" / "kept").touch()
    assert (tmp_path / "run" / "bundle" / "kept").exists()


def test_a_refused_start_with_files_of_the_user_beside_it_is_not_removed(start: Any, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError):
        start(_too_small())
    (tmp_path / "run" / "notes.txt").touch()
    with pytest.raises(UsageError, match="contains files that are not a run's"):
        start(_digits())
    assert (tmp_path / "run" / "notes.txt").exists() and (tmp_path / "run" / "bundle").exists()


def test_a_run_with_rounds_is_never_started_over(start: Any, tmp_path: Path) -> None:
    start(_digits())
    with pytest.raises(UsageError, match="exists; continue it with --resume"):
        start(_digits(steps=3))
    with pytest.raises(UsageError, match="another fleet file"):
        start(_digits(steps=3), resume=True)
    assert start(_digits(), resume=True).finished


def test_a_run_may_be_resumed_with_another_number_of_clients_that_must_deliver(start: Any) -> None:
    start(_digits(min_clients=3))
    assert start(_digits(min_clients=1), resume=True).finished


def test_a_run_of_a_release_without_newer_settings_is_resumed(start: Any, tmp_path: Path) -> None:
    fleet = _digits()
    start(fleet)
    values = msgspec.to_builtins(fleet)
    del values["training"]["max_seconds"], values["model"]["input_dtype"], values["model"]["head"]
    del values["training"]["aggregation"], values["classes"], values["privacy"]
    values["clients"] = msgspec.to_builtins(fleet.clients)  # they stood there one by one, drawn or not
    for section, keys in NEWER_SETTINGS.items():
        for key in keys:
            del values[section][key]
    older = hashlib.sha256(msgspec.json.encode([values, "local"])).hexdigest()
    assert (tmp_path / "run" / "settings.sha256").read_text().strip() == older
    with pytest.raises(UsageError, match="another fleet file"):
        start(_digits(max_seconds=5.0), resume=True)


def test_the_digest_of_a_runs_settings_stays_what_it_is() -> None:
    fleet = Fleet(
        model=ModelSettings(name="cnn"),
        data=DataSettings(sources=("digits",)),
        named=(ClientSettings(name="a", limit_mb=64),),
    )
    # Runs are continued by it. A new option belongs into NEWER_SETTINGS. Where a default changes, so must this number:
    # that is another run, and NEWER_SETTINGS stays.
    assert settings_sha256(fleet, "local") == "7d5adc192bed9ed6d4030fa0dddfa167a1b2d7d11cb795dd605b9c387e77858d"


def test_min_clients_of_the_command_line_takes_the_place_of_the_fleet_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(
        '[model]\nname = "cnn"\n[data]\nsources = ["digits"]\n[population]\ncount = 4\n[training]\nmin_clients = 2\n'
    )
    seen = []
    monkeypatch.setattr("server.running.run_fleet.run_fleet", lambda fleet, output, **options: seen.append(fleet))
    monkeypatch.setattr("server.rounds.summary_table.summary_table", lambda summary: "")
    for options in ([], ["--min-clients", "3"]):
        done = CliRunner().invoke(cli, ["run", "--fleet", str(path), "-o", str(tmp_path / "run"), *options])
        assert done.exit_code == 0, done.output
    assert [fleet.training.min_clients for fleet in seen] == [2, 3]


def test_a_folder_that_is_no_run_is_left_alone(start: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is not a run's folder"):
        start(_digits())
