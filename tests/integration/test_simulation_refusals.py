"""What a simulation refuses before it writes or trains anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from device_profiles.errors import FormatError, ProflError, UsageError
from device_profiles.work import grow
from edge_runtime.device.data.npz_writing import write_arrays, write_npz
from server.engines.simulation.compute_device import choose_device
from server.engines.simulation.promises import read_promises
from server.engines.simulation.setup import prepare_simulation
from server.fleet.reading import fleet_of
from server.methods import create_method
from tests.support.partitions import blocks_of_one_unit

BASE: dict[str, dict[str, object]] = {
    "model": {"name": "cnn", "width": 4, "batch": 8, "input_shape": [3, 16, 16]},
    "population": {"count": 2},
    "promises": {"source": "pytorch"},
    "training": {"rounds": 1},
    "method": {"name": "fedavg"},
}


def _prepare(folder: Path, source: str, **sections: dict[str, object]) -> None:
    values = {**BASE, "data": {"sources": [source]}}
    for name, section in sections.items():
        values[name] = {**values[name], **section}
    fleet = fleet_of(values, Path("fleet.toml"))
    prepare_simulation(fleet, folder / "run", lambda line: None, create_method(fleet.method))


def _images(folder: Path, size: int, *, channels: int = 1, test_label: int = 1) -> str:
    images = np.zeros((40, channels, size, size), np.uint8)
    labels = np.arange(40) % 2
    labels[4] = test_label  # the fifth is held out
    write_npz(folder / "data.npz", images, labels)
    return f"npz:{folder / 'data.npz'}"


def test_data_with_more_classes_than_the_model_are_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ProflError, match=r"^--fleet fleet.toml: .*label 9 .*outside 0..4; set model.classes to 10"):
        _prepare(tmp_path, "digits", model={"classes": 5})
    assert not (tmp_path / "run" / "data").exists()


def test_a_label_that_is_in_the_test_part_alone_is_refused_as_well(tmp_path: Path) -> None:
    with pytest.raises(ProflError, match=r"label 7 .*outside 0..4"):
        _prepare(tmp_path, _images(tmp_path, 8, test_label=7), model={"classes": 5})


def test_images_larger_than_the_input_are_refused_in_the_words_of_the_device(tmp_path: Path) -> None:
    expected = (
        r"data.sources npz:.* images are 1x20x20, the model takes 3x16x16; images larger than the input are not shr"
    )
    with pytest.raises(ProflError, match=expected):
        _prepare(tmp_path, _images(tmp_path, 20))


def test_images_of_other_channels_are_refused_with_the_shape_to_write(tmp_path: Path) -> None:
    with pytest.raises(ProflError, match=r"set model.input_shape to \[2, 8, 8\]"):
        _prepare(tmp_path, _images(tmp_path, 8, channels=2))


def test_inputs_that_are_no_images_cannot_be_augmented(tmp_path: Path) -> None:
    inputs = np.zeros((40, 3, 16, 16), np.float32)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=labels, test_inputs=inputs, test_labels=labels)
    source = f"npz:{tmp_path / 'data.npz'}"
    with pytest.raises(UsageError, match=r"fleet.toml: training.augment crop-flip: npz:.* not images; leave"):
        _prepare(tmp_path, source, training={"augment": "crop-flip"})
    _prepare(tmp_path, source)


def test_inputs_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path / "data.npz", np.zeros((40, 6, 9), np.float32), np.arange(40) % 2)
    with pytest.raises(ProflError, match="the model takes float32 of 3x16x16"):
        _prepare(tmp_path, f"npz:{tmp_path / 'data.npz'}")


def test_a_model_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--fleet fleet.toml: model.name resnet19: not a built-in model"):
        _prepare(tmp_path, "digits", model={"name": "resnet19"})
    with pytest.raises(UsageError, match=r"^--fleet fleet.toml: model.partition x: write unit ranges"):
        _prepare(tmp_path, "digits", model={"partition": "x"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match=r"^simulation.device cuda: .*; use auto, cpu, or cuda where"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("value", "said"),
    [(9.5, "9.5 is not a whole number"), ("x", '"x" is not'), (True, "true is not"), (-1, "-1 is not")],
)
def test_a_promise_that_is_no_whole_number_is_called_that(value: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "promises.json"
    path.write_text(json.dumps({"grow-block1": value}))
    with pytest.raises(FormatError, match=f"promises.json: grow-block1: {said}"):
        read_promises(path, [grow(blocks_of_one_unit(2), 1)], blocks_of_one_unit(2))
    with pytest.raises(FormatError, match="has no bytes for grow-block2"):
        read_promises(path, [grow(blocks_of_one_unit(2), 2)], blocks_of_one_unit(2))
