"""What a fleet file says of a fine-tuning: weights to start from, units that are trained, adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_profiles.errors import FormatError
from device_profiles.model import Partition
from device_profiles.work import Grow
from server.fleet.client import alike
from server.fleet.preparation import preparation_of, trained_work
from server.fleet.reading import read_fleet
from server.methods import create_method

_FILE = """
[model]
name = "cnn"
{model}
[data]
sources = ["digits"]
[population]
count = 2
[method]
name = "{method}"
[training]
rounds = 3
"""


def _written(folder: Path, model: str, method: str = "finetune") -> Path:
    path = folder / "fleet.toml"
    path.write_text(_FILE.format(model=model, method=method))
    return path


def test_the_file_says_what_the_options_of_an_export_say(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"")
    fleet = read_fleet(_written(
        tmp_path,
        'initial_weights = "w.safetensors"\nmean = [0.5, 0.4, 0.3]\nstd = [0.1, 0.2, 0.3]\n'
        'train_units = "2-4"\nlora = 4\nlora_alpha = 8.0\nlora_targets = ["fc*"]',
    ))  # fmt: skip
    prepared = preparation_of(fleet.model)
    assert prepared.initial_weights == tmp_path / "w.safetensors"  # beside the fleet file
    assert (prepared.mean, prepared.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    assert (prepared.lora, prepared.lora_alpha, prepared.lora_targets) == (4, 8.0, ("fc*",))
    assert trained_work(fleet.model) == Grow(first_unit=2, last_unit=4) and fleet.model.cut == "0-1,2-4"


def test_a_fine_tuning_has_one_stage_of_the_trained_units(tmp_path: Path) -> None:
    fleet = read_fleet(_written(tmp_path, 'train_units = "2-4"'))
    partition = Partition.ending_with([1, 4])
    (stage,) = create_method(fleet.method).stages(fleet, partition, alike({"a": 1}, {}))
    assert stage.choices == (Grow(first_unit=2, last_unit=4),) == create_method(fleet.method).works(partition)
    assert (stage.rounds, stage.block) == (3, 2)


def test_all_units_are_one_block(tmp_path: Path) -> None:
    assert read_fleet(_written(tmp_path, 'train_units = "0-4"')).model.cut == "0-4"


@pytest.mark.parametrize(
    ("model", "method", "match"),
    [
        ("", "finetune", 'model.train_units and method.name = "finetune" require each other'),
        ('train_units = "2-4"', "profl", 'model.train_units and method.name = "finetune" require each other'),
        ('train_units = "4-2"', "finetune", "model.train_units: 4-2 ends before it begins"),
        ('train_units = "2-4"\npartition = "0-4"', "finetune", "cannot be combined with model.partition"),
        ('train_units = "last"', "finetune", "model.train_units"),
        ("lora = -1", "profl", "model.lora"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, model: str, method: str, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        read_fleet(_written(tmp_path, model, method))
