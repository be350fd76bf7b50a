"""Studies: what they consist of, and the tables they end in."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

pytest.importorskip("matplotlib", reason="figures are drawn with it")

from device_profiles.errors import FormatError, UsageError
from device_profiles.files import read_json, write_json
from server.rounds.run_state import FLEET_NAME
from tests.support.fake_run import FakeEngine, fleet_of, run
from tools.experiments import __main__ as experiments
from tools.experiments.__main__ import PUBLISHED
from tools.experiments.__main__ import main as experiments_command
from tools.experiments.overview import FEDAVG_OF
from tools.experiments.participation import main as participation_command
from tools.experiments.participation import share, table_of
from tools.experiments.publish import publish
from tools.experiments.results import Outcome, StudyResults, collect, settings_sha256
from tools.experiments.study import STUDIES, cases, read_study
from tools.experiments.tables import write_report

OF_FEW_METHODS = ("elastic-own-promises", "planned-own-promises")
"""Studies that add methods to the table of another one."""


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.toml")))
def test_every_study_of_the_repository_can_be_planned(name: str) -> None:
    study = read_study(name)
    planned = list(cases(study, name))
    assert len(planned) == len(study.seeds) * len(study.splits) * len(study.methods)
    assert len({case.folder for case in planned}) == len(planned)
    for case in planned:
        assert case.fleet.margin == 0  # promises are published or counted as they are; a margin changes who takes part
        assert case.fleet.training.seed == case.fleet.model.seed == case.fleet.data.seed == case.seed
        assert case.fleet.training.rounds == planned[0].fleet.training.rounds  # the same budget for every method
    methods = {case.fleet.method.name for case in planned}
    if name not in OF_FEW_METHODS:
        largest = max(planned[0].fleet.budgets) >> 20
        # What nobody holds is no row of a table: ProFL's first step, the whole network, one block with a classifier.
        held = {"profl": 506, "exclusivefl": 840, "depthfl": 387}
        assert methods >= {"heterofl", "planned", *(name for name, mb in held.items() if mb <= largest)}
        assert ("fedavg" in methods) != (name in FEDAVG_OF)  # it is run once for all fleets of a set-up
    assert [case.seed for case in planned] == sorted(case.seed for case in planned)


@pytest.mark.parametrize(("name", "of"), FEDAVG_OF.items())
def test_a_study_without_fedavg_differs_in_memory_and_freezing_alone_from_that_which_has_it(name: str, of: str) -> None:
    own, other = read_study(name), read_study(of)
    assert "FedAvg without limits" in other.methods and own.splits == other.splits and own.seeds == other.seeds
    for section in ("model", "data", "training"):
        assert own.base[section] == other.base[section]


def test_published_runs_that_are_not_there_are_said_so() -> None:
    answer = CliRunner().invoke(experiments_command, ["odd-study.toml", "--published"])
    assert answer.exit_code == 2 and "study odd-study.toml: not known" in answer.output
    answer = CliRunner().invoke(experiments_command, ["full", "--published", "--report-only"])
    assert answer.exit_code == 2
    assert "--published: docs/results/full.json is not there; leave it out" in answer.output


def test_an_unknown_study_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"study odd: not known \(there are: .*reduced"):
        read_study("odd")
    (tmp_path / "bad.toml").write_text("title = 3")
    with pytest.raises(FormatError, match=r"bad\.toml"):
        read_study(str(tmp_path / "bad.toml"))


def _outcome(method: str, seed: int, accuracy: float) -> Outcome:
    return Outcome(
        split="IID",
        method=method,
        seed=seed,
        accuracy=accuracy,
        participation=1.0,
        rounds=2,
        device_seconds=20.0,
        bytes_a_round=3 * 2**20,
        promise_bytes=100 * 2**20,
        curve=((1, 10.0, accuracy / 2), (2, 20.0, accuracy)),
        target=None if method == "AllSmall" else (2, 20.0),
        stages=(("train", 2, "its 2 rounds"),),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study with four finished runs; the first of them is there with its rounds."""
    folder = tmp_path_factory.mktemp("experiments") / "reduced"
    first = folder / "iid" / "planned" / "seed0"
    run(first, FakeEngine(), rounds=9)
    write_json(first / FLEET_NAME, fleet_of(rounds=9))
    accuracies = {"Planned": (0.8, 0.82), "AllSmall": (0.5, 0.5)}
    outcomes = [_outcome(method, seed, value) for method, own in accuracies.items() for seed, value in enumerate(own)]
    write_report(read_study("reduced"), outcomes, folder, "command")
    write_json(folder / "results.json", StudyResults(command="command", runs=tuple(outcomes)))
    return folder


def test_tables_give_mean_and_spread_and_say_where_a_target_was_missed(written: Path) -> None:
    table = (written / "results.md").read_text()
    assert "| Planned | 81.0 ± 1.4 | 2 | 100% | 100 | 3.0 | 2 / 20 |" in table
    assert "| AllSmall | 50.0 ± 0.0 | 2 | 100% | 100 | 3.0 | never |" in table
    assert "### Dirichlet" not in table  # nothing of it is finished


def test_figures_compare_methods_and_show_how_the_first_one_went(written: Path) -> None:
    for picture in ("iid-rounds.svg", "iid-device-seconds.svg"):
        assert "AllSmall" in (written / picture).read_text()
    shown = {
        "steps": "grow 2",
        "steps-device-seconds": "seconds of training",
        "movement": "threshold",
        "participation": "with work",
        "memory": "MB a client",
    }
    for picture, words in shown.items():
        assert words in (written / f"iid-{picture}.svg").read_text()
        assert f"](iid-{picture}.svg)" in (written / "results.md").read_text()


def test_device_seconds_of_another_machine_say_so(tmp_path: Path) -> None:
    own = [
        msgspec.structs.replace(_outcome(method, 0, 0.8), machine=machine)
        for method, machine in (("ProFL", "slow"), ("DepthFL", "fast"))
    ]
    write_report(read_study("reduced"), own, tmp_path, "command")
    table = (tmp_path / "results.md").read_text()
    assert "Machine: slow; machine 2: fast." in table
    assert "| 2 / 20 |" in table and "| 2 / 20 (machine 2) |" in table


def test_figures_of_rounds_that_are_on_another_machine_are_left_out(tmp_path: Path) -> None:
    write_report(read_study("reduced"), [_outcome("Planned", 0, 0.8)], tmp_path, "command")
    assert {path.name for path in tmp_path.glob("*.svg")} == {"iid-rounds.svg", "iid-device-seconds.svg"}


def test_figures_of_published_rounds_are_taken_from_where_they_were_published(tmp_path: Path) -> None:
    published = tmp_path / "pictures" / "reduced"
    published.parent.mkdir()
    for name in ("reduced-iid-movement", "reduced-iid-rounds", "reduced-vgg-iid-memory"):
        (published.parent / f"{name}.svg").write_text("<svg>published</svg>")
    folder = tmp_path / "study"
    folder.mkdir()
    write_report(read_study("reduced"), [_outcome("Planned", 0, 0.8)], folder, "command", published)
    assert {path.name for path in folder.glob("*.svg")} == {
        "iid-rounds.svg",
        "iid-device-seconds.svg",
        "iid-movement.svg",
    }
    assert (
        (folder / "iid-movement.svg").read_text() == "<svg>published</svg>" != (folder / "iid-rounds.svg").read_text()
    )
    assert (
        "movement of Planned, seed 0, with the fitted slope](iid-movement.svg)" in (folder / "results.md").read_text()
    )
    write_report(read_study("reduced"), [_outcome("AllSmall", 0, 0.8)], folder / "others", "command", published)
    assert not (folder / "others" / "iid-movement.svg").exists()  # no run of the first method is known


def test_publishing_replaces_a_study_and_leaves_the_rest_of_the_page(written: Path, tmp_path: Path) -> None:
    page, pictures = tmp_path / "results.md", tmp_path / "pictures" / "results"
    pictures.mkdir(parents=True)
    for old in ("reduced-gone.svg", "reduced-vgg-kept.svg", "other.svg"):
        (pictures / old).write_text("<svg/>")
    page.write_text(
        "# Results\n\nBefore.\n\n<!-- study reduced -->\nold\n<!-- end of reduced -->\n\nAfter.\n"
        "<!-- study reduced-vgg -->\n<!-- end of reduced-vgg -->\n"
    )
    publish("reduced", written, page, pictures)
    text = page.read_text()
    assert text.startswith("# Results\n\nBefore.\n\n<!-- study reduced -->\n## Reduced study")
    assert "\nold\n" not in text and "\n\nAfter.\n" in text
    assert "](pictures/results/reduced-iid-rounds.svg)" in text
    assert {path.name for path in pictures.iterdir()} == {
        "reduced-vgg-kept.svg", "other.svg",
        *(f"reduced-{path.name}" for path in written.glob("*.svg")),
    }  # fmt: skip
    publish("reduced", written, page, pictures)
    assert page.read_text() == text
    numbers = tmp_path / "results" / "reduced.json"
    assert read_json(numbers, StudyResults) == read_json(written / "results.json", StudyResults)
    assert len(numbers.read_text().splitlines()) == 2 + 4  # a line for each run


def test_published_runs_of_the_same_settings_need_not_be_made_again(tmp_path: Path) -> None:
    study = read_study("reduced")
    first, second, third = list(cases(study, "reduced"))[:3]
    published = [
        msgspec.structs.replace(_outcome("old name", 0, 0.7), settings_sha256=settings_sha256(second)),
        msgspec.structs.replace(_outcome("another", 0, 0.9), settings_sha256="of other settings"),
    ]
    (outcome,) = collect([first, second, third], tmp_path, 0.5, published)
    assert (outcome.method, outcome.split, outcome.seed, outcome.accuracy) == (second.method, second.split, 0, 0.7)
    known = [msgspec.structs.replace(published[0], settings_sha256=settings_sha256(case)) for case in (first, second)]
    assert experiments._there([first, second, third], tmp_path, known) == {first.folder, second.folder}


@pytest.mark.parametrize(("study", "page", "named"), [
    ("gone", "", r"gone/results\.md: is not there; run .*gone --report-only"),
    ("reduced", "# Results\n", r"page\.md: needs one line '<!-- study reduced -->'"),
])  # fmt: skip
def test_publishing_names_what_is_missing(written: Path, tmp_path: Path, study: str, page: str, named: str) -> None:
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(FormatError, match=named):
        publish(study, written.parent / study, tmp_path / "page.md", tmp_path)


def test_shares_of_a_fleet_count_whole_megabytes_of_both_bounds() -> None:
    assert share(840 << 20, (100, 900)) == pytest.approx(61 / 801)  # 840 to 900
    assert share((840 << 20) + 1, (100, 900)) == pytest.approx(60 / 801)
    assert share(1, (100, 900)) == 1.0 and share(901 << 20, (100, 900)) == 0.0
    lines = table_of({"own": {"grow-block1": 500 << 20, "whole": 901 << 20}}, ["grow-block1", "whole"], (100, 900))
    assert lines[-1] == "| own | 500: 50.1% | 901: 0.0% |"


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--memory-mb", "900", "100"], "--memory-mb 900 100: give the least first"), (["--batch", "x"], "'--batch'")],
)
def test_participation_names_a_wrong_option(options: list[str], named: str) -> None:
    answer = CliRunner().invoke(participation_command, options)
    assert answer.exit_code == 2 and named in answer.output


SMALL = """
title = "small"
about = "a test"
seeds = [0, 1]
target_accuracy = 0.5
[base.model]
name = "cnn"
[base.data]
sources = ["cifar10:{folder}"]
[base.population]
count = 2
[base.training]
rounds = 1
[splits.IID.data]
split = "iid"
[methods.FedAvg.method]
name = "fedavg"
"""


def test_a_study_without_its_data_ends_before_the_first_run_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL.format(folder=tmp_path / "nowhere"))
    answer = CliRunner().invoke(experiments_command, [str(tmp_path / "small.toml"), "-o", str(tmp_path / "out")])
    assert answer.exit_code == 2
    first, error = answer.output.strip().splitlines()
    assert first == "0 of 2 runs are there"
    assert error.startswith("experiments: error: data.sources: none can be read (cifar10:") and "unpack" in error
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_reported_with_what_it_said_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.toml").write_text(SMALL.format(folder=tmp_path / "nowhere"))
    monkeypatch.setattr(experiments, "choose_source", lambda settings: ("there", []))
    code = "import sys; print('progress'); print('error: model.name odd: not known', file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(experiments, "_command", lambda job, folder: [sys.executable, "-c", code])
    answer = CliRunner().invoke(experiments_command, [str(tmp_path / "small.toml"), "-o", str(tmp_path / "out")])
    assert "IID, FedAvg, seed 0: error: model.name odd: not known (exit status 2, " in answer.output
    assert "2 runs failed; the tables leave them out" in answer.output


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.json")), ids=lambda path: path.stem)
def test_published_results_are_those_of_the_studies_as_they_are(path: Path) -> None:
    # Or `--published` would make all runs again, and nobody would know that a setting is no longer the published one.
    planned = {settings_sha256(case) for case in cases(read_study(path.stem), path.stem)}
    assert {outcome.settings_sha256 for outcome in read_json(path, StudyResults).runs} <= planned
