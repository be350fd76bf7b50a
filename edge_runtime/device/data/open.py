"""From the text of `--data` to a data source."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_profiles.contract import DType
from device_profiles.errors import UsageError
from device_profiles.nearest import nearest
from edge_runtime.device.data.source import DataSource, Pixels, PixelSource, Shape, Split, check_fits, check_wanted

if TYPE_CHECKING:
    from edge_runtime.device.data.arrays import ArraySource

EXPERIMENTS = "edge_runtime.experiments"
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
KNOWN = (
    "fashion-mnist, mnist-5k, digits, smartwatch, smartwatch:new-people, shakespeare:DIR, idx:DIR, npz:FILE, "
    "images:DIR, csv:FILE?label=COLUMN, parquet:FILE?label=COLUMN, wav:DIR, text:FILE, cifar10:DIR, cifar100:DIR"
)


def open_data(
    spec: str,
    *,
    split: Split,
    input_shape: Shape,
    input_dtype: DType = "float32",
    targets: int | None = None,
    numbers: bool = True,
) -> DataSource:
    """Open `spec` for a model that takes `input_shape`: pixels scaled to it, or inputs as they are.

    `targets` is how many `numbers`, or else labels, each example's output is compared with; None for one label.

    Raises UsageError where `spec` is none of the known forms, DataError where files are missing, damaged or do not
    fit the shape.
    """
    arrays = _open_inputs(spec, split, (input_shape, input_dtype), targets, numbers)
    if arrays is not None:
        return arrays
    if input_dtype != "float32" or targets is not None:
        raise _only_labels(spec)
    pixels = open_pixels(spec, split=split)
    check_fits(pixels, input_shape, spec)
    return PixelSource(pixels, input_shape)


def open_raw(spec: str, *, split: Split, numbers: int = 0) -> Pixels | ArraySource:
    """Open `spec` as it is, whatever the model: raw images, or inputs of any shape, with as many labels for an example
    as there are, or with so many `numbers`. Raises as `open_data` does."""
    inputs = _open_inputs(spec, split, None, numbers or None)
    if inputs is not None:
        return inputs
    if numbers:
        raise _only_labels(spec)
    return open_pixels(spec, split=split)


def _open_inputs(
    spec: str, split: Split, wanted: tuple[Shape, DType] | None, targets: int | None, numbers: bool = True
) -> ArraySource | None:
    """The inputs of a data set that has no images; None where it has."""
    kind, _, location = spec.partition(":")
    source: ArraySource
    if kind == "npz" and location:
        from edge_runtime.device.data.arrays import open_arrays
        from edge_runtime.device.data.hold_out import file_and_hold_out

        return open_arrays(*file_and_hold_out(location, spec), split, wanted, targets, numbers)
    if targets is not None and not numbers:
        raise UsageError(
            "has one label for an example",
            field="data",
            value=spec,
            remedy=f"this model needs npz:FILE with labels [n, {targets}]",
        )
    if kind in ("csv", "parquet") and location:
        from edge_runtime.device.data.tables import open_table

        source = open_table(kind, location, spec, split, targets)
        if wanted is not None:
            check_wanted(source.input_shape, source.input_dtype, wanted, spec)
        return source
    if kind == "text" and location:
        from edge_runtime.device.data.text_files import open_text

        source = open_text(location, spec, split)
    elif kind == "wav" and location:
        from edge_runtime.device.data.sounds import open_sounds

        source = open_sounds(location, spec, split)
    elif kind == "smartwatch" and location in ("", "new-people"):
        source = _of_experiments(spec, kind).open_smartwatch(split, new_people=location != "")
    elif kind == "shakespeare" and location:
        source = _of_experiments(spec, kind).open_shakespeare(Path(location), split)
    else:
        return None
    if targets is not None:
        raise UsageError(
            "has labels",
            field="data",
            value=spec,
            remedy="the mean squared error needs npz:FILE with numbers as labels",
        )
    if wanted is not None:
        check_wanted(source.input_shape, source.input_dtype, wanted, spec)
    return source


def _of_experiments(spec: str, module: str) -> Any:
    """A module of data sets of experiments: they are found by name, because devices do not have them."""
    try:
        return importlib.import_module(f"{EXPERIMENTS}.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(EXPERIMENTS):
            raise
        raise UsageError(
            "is a data set of experiments, which the wheel leaves out",
            field="data",
            value=spec,
            remedy="run from a clone of the repository, or name files of your own",
        ) from None


def open_pixels(spec: str, *, split: Split) -> Pixels:
    """Open images of `spec` as they are, unscaled and in their own shape; raises as `open_data` does."""
    kind, _, location = spec.partition(":")
    if kind == "fashion-mnist":
        from edge_runtime.device.data.idx import open_idx

        return open_idx(Path(location) if location else FASHION_MNIST_FOLDER, split, package="dataset-fashion-mnist")
    if kind in ("mnist-5k", "digits") and not location:
        pixels: Pixels = _of_experiments(spec, "packaged").open_packaged(kind, split)
        return pixels
    if not location:
        raise _unknown(spec)
    if kind == "idx":
        from edge_runtime.device.data.idx import open_idx

        return open_idx(Path(location), split)
    if kind == "npz":
        from edge_runtime.device.data.hold_out import file_and_hold_out
        from edge_runtime.device.data.npz import open_npz

        return open_npz(*file_and_hold_out(location, spec), split)
    if kind in ("cifar10", "cifar100"):
        from edge_runtime.device.data.cifar import open_cifar

        return open_cifar(kind, Path(location), split)
    if kind == "images":
        from edge_runtime.device.data.images import open_images

        return open_images(location, spec, split)
    raise _unknown(spec)


def _only_labels(spec: str) -> UsageError:
    return UsageError(
        "gives images and labels",
        field="data",
        value=spec,
        remedy="this model needs npz:FILE with `inputs` of its own",
    )


def _unknown(spec: str) -> UsageError:
    """For what is no form of a data set: all of them, and the one that was meant."""
    forms = {form.partition(":")[0]: form for form in reversed(KNOWN.split(", "))}
    kind, _, location = spec.partition(":")
    near = [forms[name] for name in nearest(kind, forms)]
    remedy = f"did you mean {' or '.join(near)}?" if near else None
    if kind in forms and not location:
        remedy = f"write {forms[kind]}"
    ending = Path(spec).suffix.removeprefix(".")
    if ending in ("npz", "csv", "parquet"):
        meant = f"{ending}:{spec}" + ("" if ending == "npz" else "?label=COLUMN")
        remedy = f"write {meant}" if Path(spec).is_file() else f"write {forms[ending]}: there is no file {spec}"
    return UsageError(f"not a known data set (known: {KNOWN})", field="data", value=spec, remedy=remedy)
