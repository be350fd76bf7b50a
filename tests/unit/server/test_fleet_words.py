"""Errors about a fleet file name it and its keys."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_profiles.errors import DataError, ExecutionError, FormatError, UsageError
from server.fleet.fleet import Fleet
from server.fleet.reading import read_fleet
from server.fleet.words import in_words_of, translated

START = "margin = 0.1\n[model]\nname = 'cnn'\n[data]\nsources = ['digits']\n"
CLIENT = "[[clients]]\nname = 'a'\nlimit_mb = 9\n"


def _read(text: str, folder: Path) -> Fleet:
    (folder / "fleet.toml").write_text(text)
    return read_fleet(folder / "fleet.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[method]\nname = 'fedsgd'\n", "method.name: 'fedsgd' is none of profl, elastic, fedavg"),
        ("[training]\naugment = 'flip'\n", "training.augment: 'flip' is none of none, crop-flip"),
        ("[training]\nstepz = 3\n", r"training.stepz: is not known here; did you mean steps\?"),
        ("[trainig]\nsteps = 3\n", r"trainig: is not known here; did you mean training\?"),
        ("[population]\ncount = 3\nqqq = 1\n", "population.qqq: is not known here; there are: count, memory_mb, seed"),
        ("[[clients]]\nname = 'b'\nlimit = 3\n", r"clients.limit: is not known here; did you mean limit_mb\?"),
        ("[training]\nlearning_rate = inf\n", "training.learning_rate: must be a finite number"),
        ("[training]\nmilestones = [0.5, nan]\n", "training.milestones: must be a finite number"),
        ("[[clients]]\nname = 'b'\nlimit_mb = inf\n", "clients.limit_mb: must be a finite number"),
        ("[training]\nrounds = 'many'\n", "training.rounds: Expected `int"),
    ],
)
def test_a_wrong_name_is_refused_with_the_names_there_are(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"--fleet .*fleet.toml: {expected}"):
        _read(START + CLIENT + text, tmp_path)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("--model resnet19: not a built-in model", "model.name resnet19: not a built-in model"),
        ("--partition x: write unit ranges", "model.partition x: write unit ranges"),
        (
            "--model cnn: takes images; write --input as channels x height x width, 3x32x32",
            "model.name cnn: takes images; write model.input_shape as channels x height x width, such as [3, 32, 32]",
        ),
        ("partition: covers 5 units, the model has 3", "model.partition: covers 5 units, the model has 3"),
        (
            "no head is recognised; name the module where it begins with --head MODULE",
            "no head is recognised; name the module where it begins as model.head",
        ),
        (
            "--data digits: images are 2x8x8, the model takes 3x8x8; export the model with --input 2x8x8",
            "data.sources digits: images are 2x8x8, the model takes 3x8x8; set model.input_shape to [2, 8, 8]",
        ),
        (
            "label 9 is outside 0..4; export the model with --classes 10 or correct the labels",
            "label 9 is outside 0..4; set model.classes to 10 or correct the labels",
        ),
    ],
)
def test_options_of_other_commands_become_keys_of_the_fleet_file(said: str, expected: str, tmp_path: Path) -> None:
    assert translated(said) == expected
    fleet = _read(START + CLIENT, tmp_path)
    with pytest.raises(UsageError) as caught, in_words_of(fleet.origin, fleet.model.name):
        raise UsageError(said)
    assert str(caught.value) == f"--fleet {tmp_path / 'fleet.toml'}: {expected}"


def test_an_error_about_a_key_gets_the_file_and_any_other_stays_as_it_is(tmp_path: Path) -> None:
    fleet = _read(START + CLIENT, tmp_path)
    with (
        pytest.raises(DataError, match=r"^--fleet .*fleet.toml: data.alpha: too small$"),
        in_words_of(fleet.origin, fleet.model.name),
    ):
        raise DataError("data.alpha: too small")
    with pytest.raises(ExecutionError, match=r"^profile of a: killed$"), in_words_of(fleet.origin, fleet.model.name):
        raise ExecutionError("profile of a: killed")
    with pytest.raises(DataError, match=r"^part.npz: damaged$"), in_words_of(fleet.origin, fleet.model.name):
        raise DataError("part.npz: damaged")


@pytest.mark.parametrize("clients", [CLIENT, "[population]\ncount = 2\n"])
def test_the_name_of_the_file_is_no_part_of_the_fleet(clients: str, tmp_path: Path) -> None:
    fleet = _read(START + clients, tmp_path)
    assert fleet.origin == f"--fleet {tmp_path / 'fleet.toml'}"
    written = msgspec.json.encode(fleet)
    assert b"fleet.toml" not in written
    again = msgspec.json.decode(written, type=Fleet)
    assert again == fleet and again.origin == "fleet file"


def test_another_number_of_clients_leaves_the_fleet_the_name_of_its_file(tmp_path: Path) -> None:
    fleet = _read(START + CLIENT, tmp_path)
    changed = fleet.with_min_clients(3)
    assert changed.training.min_clients == 3
    assert changed.origin == fleet.origin == f"--fleet {tmp_path / 'fleet.toml'}"


def test_what_is_wrong_with_the_model_names_it_and_the_file(tmp_path: Path) -> None:
    fleet = _read(START + CLIENT, tmp_path)
    with (
        pytest.raises(
            UsageError, match=r"--fleet .*fleet\.toml: model\.name cnn: the model takes 1 tensors and returns 2"
        ),
        in_words_of(fleet.origin, fleet.model.name),
    ):
        raise UsageError("the model takes 1 tensors and returns 2; wrap it")
