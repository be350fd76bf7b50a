"""Fleets of virtual devices: drawn from bounds or classes, written in a few lines, read as columns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from device_profiles.errors import FormatError, ProflError, UsageError
from server.cli import cli
from server.fleet.fleet import Fleet
from server.fleet.population import ClassSettings, PopulationSettings, drawn, limits_mb, name_runs
from server.fleet.reading import read_fleet
from server.fleet.synthetic import read_classes, shipped_tables, synthesize

ROOT = Path(__file__).resolve().parents[3]
START = '[model]\nname = "cnn"\n[data]\nsources = ["digits"]\n'
CLASSES = """
[[classes]]
name = "small"
share = 3
memory_mb = [50, 60]
[[classes]]
name = "large"
share = 1
memory_mb = [900, 900]
"""


def _read(text: str, folder: Path) -> Fleet:
    path = folder / "fleet.toml"
    path.write_text(START + text)
    return read_fleet(path)


def _synth(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["fleet", "synth", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_population_of_earlier_releases_is_drawn_as_it_was(tmp_path: Path) -> None:
    fleet = _read("[population]\ncount = 4\nmemory_mb = [10, 500]\nseed = 3\n", tmp_path)
    expected = np.random.default_rng(3).integers(10, 500, size=4, endpoint=True)
    assert [(c.name, c.limit_mb) for c in fleet.clients] == [(f"client00{n}", mb) for n, mb in enumerate(expected)]
    assert fleet.budgets.tolist() == [client.limit_bytes for client in fleet.clients]


def test_clients_of_a_class_have_its_name_and_memory(tmp_path: Path) -> None:
    fleet = _read("[population]\ncount = 6\n" + CLASSES, tmp_path)
    assert [c.name for c in fleet.clients] == [*(f"small-00{n}" for n in range(5)), "large-000"]
    assert all(50 <= client.limit_mb <= 60 for client in fleet.clients[:5]) and fleet.clients[5].limit_mb == 900
    assert fleet.client_count == 6


def test_named_clients_have_budgets_in_their_order(tmp_path: Path) -> None:
    fleet = _read('[[clients]]\nname = "b"\nlimit_mb = 1.5\n[[clients]]\nname = "a"\nlimit_mb = 1\n', tmp_path)
    assert fleet.budgets.tolist() == [3 << 19, 1 << 20] and fleet.client_count == 2


@given(st.integers(1, 500), st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(0, 9))
def test_every_client_has_a_class_and_classes_are_as_common_as_they_should_be(
    count: int, shares: list[float], seed: int
) -> None:
    classes = [
        ClassSettings(name=f"c{number}", share=share, memory_mb=(number + 1, number + 2))
        for number, share in enumerate(shares)
    ]
    population = PopulationSettings(count=count, seed=seed)
    runs = name_runs(population, classes)
    assert sum(run.count for run in runs) == count
    for run, share in zip(runs, shares, strict=True):
        assert abs(run.count - count * share / sum(shares)) <= 1
    clients = drawn(population, classes)
    assert [client.limit_mb for client in clients] == limits_mb(population, classes).tolist()
    assert len({client.name for client in clients}) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[clients]]\nname = "a"\nlimit_mb = 1\n' + CLASSES, r"\[\[classes\]\] requires \[population\]"),
        ("[population]\ncount = 1\nmemory_mb = [1, 2]\n" + CLASSES, "population.memory_mb cannot be combined"),
        ("[population]\ncount = 1\n" + CLASSES + CLASSES, "two classes have the same name"),
        ("[population]\ncount = 1\n" + CLASSES.replace("50, 60", "60, 50"), "small: memory_mb: 60 is larger than 50"),
        ("[population]\ncount = 1\n" + CLASSES.replace("share = 3", "share = 0"), r"classes\[0\].share"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"--fleet .*fleet.toml: .*{message}"):
        _read(text, tmp_path)


def test_a_million_clients_are_read_without_an_object_for_each(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    _synth("--devices", 10**6, "--memory", "classes:phones", "--seed", 1, "-o", path)
    assert path.stat().st_size < 1000
    fleet = read_fleet(path)
    assert fleet.client_count == len(fleet.budgets) == 10**6
    assert "clients" not in fleet.__dict__
    share = np.mean(fleet.budgets >= 410 << 20)
    assert 0.2 < share < 0.6


@pytest.mark.parametrize("name", ["fleet.toml", "fleet.json"])
def test_the_same_seed_gives_the_same_fleet_in_both_formats(name: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        said = _synth("--devices", 50, "--memory", "uniform:100-900MB", "--seed", 7, "-o", tmp_path / folder / name)
        assert re.fullmatch(r"wrote \S+: 50 devices of \d+ to \d+ MB\n", said)
    one, two = tmp_path / "one" / name, tmp_path / "two" / name
    assert one.read_bytes() == two.read_bytes()
    clients = read_fleet(one).clients
    assert clients == drawn(PopulationSettings(count=50, memory_mb=(100, 900), seed=7), ())


def test_the_other_sections_are_those_of_a_fleet_that_is_given(tmp_path: Path) -> None:
    simulation = ROOT / "examples" / "fleets" / "simulation.toml"
    output = tmp_path / "fleet.toml"
    report = json.loads(
        _synth("--devices", 20, "--memory", "classes:boards", "--like", simulation, "-o", output, "--json")
    )
    made, given_fleet = read_fleet(output), read_fleet(simulation)
    assert (made.model, made.data, made.training) == (given_fleet.model, given_fleet.data, given_fleet.training)
    assert {c["name"]: c["devices"] for c in report["classes"]}["pi-zero-2w"] == 3 and made.client_count == 20


@pytest.mark.parametrize(
    ("memory", "bounds"),
    [("uniform:100-900MB", (100, 900)), ("uniform:1-2GB", (1024, 2048)), ("uniform:512MB-1GB", (512, 1024))],
)
def test_bounds_are_written_with_one_unit_or_two(memory: str, bounds: tuple[int, int], tmp_path: Path) -> None:
    synthesize(memory, devices=3, seed=0, like=None, output=tmp_path / "fleet.toml")
    population = read_fleet(tmp_path / "fleet.toml").population
    assert population is not None and population.memory_mb == bounds


@pytest.mark.parametrize(
    "memory", ["uniform:", "uniform:5", "uniform:900-100MB", "uniform:1-2KB", "uniform:1-2", "normal:1-2MB", "classes:"]
)
def test_memory_that_is_written_otherwise_is_refused_and_nothing_is_written(memory: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^--memory {memory}"):
        _synth("--devices", 3, "--memory", memory, "-o", tmp_path / "fleet.toml")
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_ones_own_is_read_and_what_is_wrong_in_it_named(tmp_path: Path) -> None:
    table = tmp_path / "classes.toml"
    table.write_text(CLASSES)
    _synth("--devices", 8, "--memory", f"classes:{table}", "-o", tmp_path / "fleet.toml")
    assert [run.count for run in name_runs(*_sections(tmp_path / "fleet.toml"))] == [6, 2]
    for text, message in [
        (CLASSES.replace("share", "shore"), "shore: is not known here; did you mean share"),
        (CLASSES.replace("900, 900", "900, 800"), "large: memory_mb: the smaller bound comes first"),
        (CLASSES + CLASSES, "two classes have the same name"),
        ("classes = []", "classes"),
        ("[", ""),
    ]:
        table.write_text(text)
        with pytest.raises(ProflError, match=f"^--memory {table}: .*{message}"):
            _synth("--devices", 8, "--memory", f"classes:{table}", "-o", tmp_path / "no.toml")
    assert not (tmp_path / "no.toml").exists()


def _sections(path: Path) -> tuple[PopulationSettings, tuple[ClassSettings, ...]]:
    fleet = read_fleet(path)
    assert fleet.population is not None
    return fleet.population, fleet.classes


@pytest.mark.parametrize("table", shipped_tables())
def test_rows_that_ship_say_their_ram_and_stay_below_it(table: str) -> None:
    text = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    for row in read_classes(table):
        assert row.ram_mb is not None and 0 < row.memory_mb[0] < row.memory_mb[1] < row.ram_mb
        assert f"| `{row.name}` | {row.ram_mb} | {row.memory_mb[0]} to {row.memory_mb[1]} |" in text
        assert table == "phones" or (row.source or "").startswith("https://")
