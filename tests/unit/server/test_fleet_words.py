"""Errors about a fleet file name it and its keys."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_profiles.errors import DataError, ExecutionError, FormatError, ProflError, UsageError
from device_profiles.settings import THE_MODEL, Exported, Setting, ValueOf
from server.engines.simulation.trainables import TrainableSet
from server.fleet.fleet import Fleet
from server.fleet.reading import read_fleet
from server.fleet.words import in_words_of

START = "margin = 0.1\n[model]\nname = 'cnn'\n[data]\nsources = ['digits']\n"
CLIENT = "[[clients]]\nname = 'a'\nlimit_mb = 9\n"


def _read(text: str, folder: Path) -> Fleet:
    (folder / "fleet.toml").write_text(text)
    return read_fleet(folder / "fleet.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[method]\nname = 'fedsgd'\n", "method.name: 'fedsgd' is none of profl, elastic, planned, finetune, fedavg"),
        ("[training]\naugment = 'flip'\n", "training.augment: 'flip' is none of none, crop-flip"),
        ("[training]\nstepz = 3\n", r"training.stepz: is not known here; did you mean steps\?"),
        ("[trainig]\nsteps = 3\n", r"trainig: is not known here; did you mean training\?"),
        ("[population]\ncount = 3\nqqq = 1\n", "population.qqq: is not known here; there are: count, memory_mb, seed"),
        ("[[clients]]\nname = 'b'\nlimit = 3\n", r"clients\[1\].limit: is not known here; did you mean limit_mb\?"),
        ("[training]\nlearning_rate = inf\n", "training.learning_rate: must be a finite number"),
        ("[training]\nmilestones = [0.5, nan]\n", "training.milestones: must be a finite number"),
        ("[[clients]]\nname = 'b'\nlimit_mb = inf\n", "clients.limit_mb: must be a finite number"),
        ("[training]\nrounds = 'many'\n", "training.rounds: is a text, must be a whole number"),
    ],
)
def test_a_wrong_name_is_refused_with_the_names_there_are(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"--fleet .*fleet.toml: {expected}"):
        _read(START + CLIENT + text, tmp_path)


@pytest.mark.parametrize(
    ("error", "option", "key"),
    [
        (
            UsageError("not a built-in model", field="model", value="resnet19"),
            "--model resnet19: not a built-in model",
            "model.name resnet19: not a built-in model",
        ),
        (
            UsageError("write unit ranges", field="partition", value="x"),
            "--partition x: write unit ranges",
            "model.partition x: write unit ranges",
        ),
        (
            UsageError("must be positive", field="width"),
            "--width: must be positive",
            "model.width: must be positive",
        ),
        (
            UsageError(("takes images; write ", Setting("input_shape"), " as ", ValueOf("input_shape", (3, 32, 32)))),
            "takes images; write --input as 3x32x32",
            "takes images; write model.input_shape as [3, 32, 32]",
        ),
        (
            UsageError("no head is recognised", remedy=("name it with ", Setting("head"))),
            "no head is recognised; name it with --head",
            "no head is recognised; name it with model.head",
        ),
        (
            DataError("images are 2x8x8", field="data", value="digits", remedy=Exported("input_shape", (2, 8, 8))),
            "--data digits: images are 2x8x8; export the model with --input 2x8x8",
            "data.sources digits: images are 2x8x8; set model.input_shape to [2, 8, 8]",
        ),
        (
            DataError("label 9 is outside 0..4", remedy=(Exported("classes", 10), " or correct the labels")),
            "label 9 is outside 0..4; export the model with --classes 10 or correct the labels",
            "label 9 is outside 0..4; set model.classes to 10 or correct the labels",
        ),
        (
            UsageError("tokens", remedy=("a model of tokens requires ", Setting("input_dtype", "int64"))),
            "tokens; a model of tokens requires --input-dtype int64",
            'tokens; a model of tokens requires model.input_dtype = "int64"',
        ),
        (
            UsageError((THE_MODEL, " takes 1 tensors and returns 2"), remedy="wrap it"),
            "the model takes 1 tensors and returns 2; wrap it",
            "model.name cnn: the model takes 1 tensors and returns 2; wrap it",
        ),
        (
            UsageError((Setting("proximal"), " cannot be combined with ", Setting("clip_norm"))),
            "--proximal cannot be combined with --clip-norm",
            "training.proximal cannot be combined with training.clip_norm",
        ),
        (
            ExecutionError("there are 3 stages", field="training.rounds", value=2, remedy="give more"),
            "training.rounds 2: there are 3 stages; give more",
            "training.rounds 2: there are 3 stages; give more",
        ),
        (
            UsageError("must divide", field="micro_batch", value=3, remedy=Exported("micro_batch", 2)),
            "--micro-batch 3: must divide; export the model with --micro-batch 2",
            "--micro-batch 3: must divide; export the model with --micro-batch 2",
        ),
    ],
)
def test_each_front_end_has_its_own_words_for_a_setting(
    error: ProflError, option: str, key: str, tmp_path: Path
) -> None:
    assert str(error) == option
    fleet = _read(START + CLIENT, tmp_path)
    with pytest.raises(type(error)) as caught, in_words_of(fleet.origin, fleet.model.name):
        raise error
    assert str(caught.value) == f"--fleet {tmp_path / 'fleet.toml'}: {key}"


def _export_refuses(fleet: str, folder: Path) -> str:
    """What a simulation says of a model that cannot be exported."""
    read = _read(fleet, folder)
    with pytest.raises(ProflError) as caught, in_words_of(read.origin, read.model.name):
        TrainableSet(read.model)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("name = 'resnet19'", "model.name resnet19: not a built-in model (there are: "),
        ("name = 'cnn'\npartition = 'x'", "model.partition x: write unit ranges such as 0-2,3-4,5-8"),
        ("name = 'cnn'\npartition = '0-9'", "model.partition 0-9: covers 10 units, the model has 3; give units 0 to 2"),
        ("name = 'cnn'\nhead = 'nothing'", "model.head nothing: no module of this name with a layer in the model"),
        (
            "name = 'cnn'\ninput_shape = [16]",
            "model.name cnn: takes images; write model.input_shape as channels x height x width, such as [3, 32, 32]",
        ),
    ],
)
def test_the_exporter_speaks_of_keys_of_the_fleet_file(model: str, expected: str, tmp_path: Path) -> None:
    said = _export_refuses(f"[model]\n{model}\n[data]\nsources = ['digits']\n{CLIENT}", tmp_path)
    assert said.startswith(f"--fleet {tmp_path / 'fleet.toml'}: {expected}"), said
    assert "--" not in said.removeprefix("--fleet")


def test_an_error_about_a_key_gets_the_file_and_any_other_stays_as_it_is(tmp_path: Path) -> None:
    fleet = _read(START + CLIENT, tmp_path)
    with (
        pytest.raises(DataError, match=r"^--fleet .*fleet.toml: data.alpha: too small$"),
        in_words_of(fleet.origin, fleet.model.name),
    ):
        raise DataError("too small", field="data.alpha")
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
