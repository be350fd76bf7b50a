"""Studies: what they consist of, and the tables they end in."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="figures are drawn with it")

from device_profiles.errors import FormatError, UsageError
from tools.experiments.results import Outcome
from tools.experiments.study import STUDIES, cases, read_study
from tools.experiments.tables import write_report


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.toml")))
def test_every_study_of_the_repository_can_be_planned(name: str) -> None:
    study = read_study(name)
    planned = list(cases(study, name))
    assert len(planned) == len(study.seeds) * len(study.splits) * len(study.methods)
    assert len({case.folder for case in planned}) == len(planned)
    for case in planned:
        assert case.fleet.training.seed == case.fleet.model.seed == case.fleet.data.seed == case.seed
        assert case.fleet.training.rounds == planned[0].fleet.training.rounds  # the same budget for every method
    assert {case.fleet.method.name for case in planned} >= {"profl", "fedavg", "heterofl", "depthfl", "exclusivefl"}
    assert [case.seed for case in planned] == sorted(case.seed for case in planned)


def test_an_unknown_study_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"study odd: not known \(there are: .*reduced"):
        read_study("odd")
    (tmp_path / "bad.toml").write_text("title = 3")
    with pytest.raises(FormatError, match=r"bad\.toml"):
        read_study(str(tmp_path / "bad.toml"))


def test_tables_give_mean_and_spread_and_say_where_a_target_was_missed(tmp_path: Path) -> None:
    study = read_study("reduced")
    outcomes = [
        Outcome(
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
        for method, values in (("ProFL", (0.8, 0.82)), ("AllSmall", (0.5, 0.5)))
        for seed, accuracy in enumerate(values)
    ]
    write_report(study, outcomes, tmp_path, "command")
    table = (tmp_path / "results.md").read_text()
    assert "| ProFL | 81.0 ± 1.4 | 2 | 100% | 100 | 3.0 | 2 / 20 |" in table
    assert "| AllSmall | 50.0 ± 0.0 | 2 | 100% | 100 | 3.0 | never |" in table
    assert "### Dirichlet" not in table  # nothing of it is finished
    for picture in ("iid-rounds.svg", "iid-device-seconds.svg"):
        assert "AllSmall" in (tmp_path / picture).read_text()
