"""The examples of a command: opened as a program takes them, checked against its model, described for the process."""

from __future__ import annotations

from array import array

from device_profiles.contract import IGNORED_LABEL
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
    targets, numbers = bundle.label_type(program)
    return open_data(
        spec,
        split=split,
        input_shape=model.input_shape,
        input_dtype=model.input_dtype,
        targets=targets,
        numbers=numbers,
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
        label_format="B" if small else data.labels.typecode,
        augment=augment,
    )


def check_examples(data: DataSource, model: Model) -> None:
    """Raise DataError, with the file, the value and its example, for a label or a token unknown to the model."""
    if data.labels.typecode != "f":
        check_labels(data, model.classes)
    if model.vocabulary is not None:
        data.check_tokens(model.vocabulary)


def check_labels(data: DataSource, classes: int) -> None:
    """Raise DataError, with the file, the value and its example, for a label outside [0, classes). Of several for an
    example some may be ignored."""
    labels = data.labels
    if data.targets:
        labels = array("q", (label for label in labels if label != IGNORED_LABEL))
        if not labels:
            raise DataError(f"every label is {IGNORED_LABEL}, which none counts of", place=data.labels_origin)
    for label in (min(labels), max(labels)):
        if not 0 <= label < classes:
            example = data.labels.index(label) // (data.targets or 1)
            raise DataError(
                f"label {label} (example {example}) is outside 0..{classes - 1}",
                place=data.labels_origin,
                remedy=(
                    (Exported("classes", data.classes), " or ") if label >= classes else "",
                    "correct the labels, which count from 0",
                ),
            )
