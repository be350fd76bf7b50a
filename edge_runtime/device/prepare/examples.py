"""The examples of a command: opened as a program takes them, checked against its model, described for the process."""

from __future__ import annotations

from device_profiles.errors import DataError
from device_profiles.manifest import Program
from device_profiles.model import Model
from device_profiles.settings import Exported
from edge_runtime.device.data import DataSource, Split, open_data
from edge_runtime.device.data.source import extents
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.worker.job import DataJob


def open_examples(spec: str, split: Split, bundle: Bundle, program: Program) -> DataSource:
    """The data of `spec` as `program` takes them; raises as `open_data` does."""
    model = bundle.manifest.model
    return open_data(
        spec,
        split=split,
        input_shape=model.input_shape,
        input_dtype=model.input_dtype,
        targets=model.classes if bundle.labels_are_targets(program) else None,
    )


def data_job(data: DataSource, *, augment: bool = False) -> DataJob:
    """Describe a data set for the training process; its files are inherited."""
    small = not data.targets and max(data.labels) < 256
    return DataJob(
        origin=data.origin,
        image_shape=None if data.image_shape is None else extents(data.image_shape),
        input_shape=data.input_shape,
        input_dtype=data.input_dtype,
        targets=data.targets,
        parts=data.parts,
        labels=bytes(data.labels.tolist()) if small else data.labels.tobytes(),
        label_format="f" if data.targets else "B" if small else "q",
        augment=augment,
    )


def check_examples(data: DataSource, model: Model) -> None:
    """Raise DataError, with the file, the value and its example, for a label or a token unknown to the model."""
    if not data.targets:
        check_labels(data, model.classes)
    if model.vocabulary is not None:
        data.check_tokens(model.vocabulary)


def check_labels(data: DataSource, classes: int) -> None:
    """Raise DataError, with the file, the value and its example, for a label outside [0, classes)."""
    for label in (min(data.labels), max(data.labels)):
        if not 0 <= label < classes:
            raise DataError(
                f"label {label} (example {data.labels.index(label)}) is outside 0..{classes - 1}",
                place=data.labels_origin,
                remedy=(
                    (Exported("classes", data.classes), " or ") if label >= classes else "",
                    "correct the labels, which count from 0",
                ),
            )
