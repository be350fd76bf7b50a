"""Reads a fleet file: what is wrong in it is one line with its key."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.errors import FormatError
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.wrong_values import explained
from server.fleet.fleet import Fleet


def read_fleet(path: Path, *, joining: bool = False) -> Fleet:
    """Read a fleet file of TOML, or of JSON with the same keys; raises FormatError, naming the file and the field.

    `joining`: the clients are the devices of a federation, and the file names none."""
    return fleet_of(read_values(path, "--fleet"), path, joining=joining)


def read_values(path: Path, option: str) -> dict[str, Any]:
    """A file of TOML, or of JSON where its name ends so; raises FormatError that names `option` and the file."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise FormatError(f"{option} {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # what both formats raise where they are not followed
        raise FormatError(f"{option} {path}: {error}") from None
    if not isinstance(values, dict):
        raise FormatError(f"{option} {path}: is no object")
    return values


def fleet_of(values: dict[str, Any], path: Path, *, joining: bool = False) -> Fleet:
    """The fleet that the parsed file says, checked; `path` is named in what is wrong, now and later."""
    fleet = _beside(_checked(values, path, joining=joining), path.parent)
    fleet.__dict__["origin_text"] = f"--fleet {path}"
    fleet.__dict__["folder_read"] = path.parent
    return fleet


def _not_finite(value: Any, key: str = "") -> str | None:
    """The first key below which there is an infinity, or a value that is no number at all."""
    if isinstance(value, dict):
        below = ((f"{key}.{name}" if key else name, inner) for name, inner in value.items())
    elif isinstance(value, list | tuple):
        below = ((key, inner) for inner in value)
    else:
        return key if isinstance(value, float) and not math.isfinite(value) else None
    return next((found for name, inner in below if (found := _not_finite(inner, name)) is not None), None)


def _checked(values: dict[str, Any], path: Path, *, joining: bool) -> Fleet:
    key = _not_finite(values)
    if key is not None:
        raise FormatError(f"--fleet {path}: {key}: must be a finite number")
    try:
        fleet = msgspec.convert(values, Fleet, strict=True)
    except msgspec.ValidationError as error:
        raise FormatError(f"--fleet {path}: {explained(error, Fleet)}") from None
    if {"steps", "epochs"} <= values.get("training", {}).keys():
        raise FormatError(f"--fleet {path}: training.steps cannot be combined with training.epochs")
    training = values.get("training", {})
    for owner, kind in OPTIMIZERS.items():
        for option in kind.settings:
            if option in training and owner != fleet.training.optimizer:
                raise FormatError(f'--fleet {path}: training.{option} requires training.optimizer = "{owner}"')
    if "learning_rate" not in training:
        rate = OPTIMIZERS[fleet.training.optimizer].learning_rate
        fleet = msgspec.structs.replace(fleet, training=msgspec.structs.replace(fleet.training, learning_rate=rate))
    names = [client.name for client in fleet.named]
    if len(set(names)) != len(names):
        raise FormatError(f"--fleet {path}: two clients have the same name")
    _check_clients(fleet, path, joining=joining)
    if fleet.training.cache_prefix != "none" and fleet.training.augment != "none":
        raise FormatError(f"--fleet {path}: training.cache_prefix cannot be combined with training.augment")
    if fleet.training.clip_norm > 0 and fleet.training.proximal > 0:
        raise FormatError(f"--fleet {path}: training.clip_norm cannot be combined with training.proximal")
    if fleet.training.nesterov and fleet.training.momentum == 0:
        raise FormatError(f"--fleet {path}: training.nesterov requires training.momentum above 0")
    if fleet.promises.source == "file" and fleet.promises.file is None:
        raise FormatError(f"--fleet {path}: promises.source 'file' requires promises.file")
    if fleet.promises.recompute and fleet.promises.source != "runtime":
        raise FormatError(
            f"--fleet {path}: promises.recompute is about the light runtime's plans; leave it out, or write "
            'promises.source = "runtime"'
        )
    _check_population(fleet, values, path)
    _check_loss(fleet, path)
    _check_trained(fleet, path)
    wrong = fleet.contradiction()
    if wrong is not None:
        raise FormatError(str(wrong), place=f"--fleet {path}")
    return fleet


def _check_loss(fleet: Fleet, path: Path) -> None:
    """Labels are of two classes at least, and only they can be smoothed."""
    model = fleet.model
    if model.loss == "mse" and model.label_smoothing > 0:
        raise FormatError(f'--fleet {path}: model.label_smoothing requires model.loss = "cross-entropy"')
    if model.loss == "cross-entropy" and model.classes < 2:
        raise FormatError(f'--fleet {path}: model.classes: {model.classes} requires model.loss = "mse"')


def _check_trained(fleet: Fleet, path: Path) -> None:
    """The units of a fine-tuning say the partition, and are the method's."""
    model = fleet.model
    if (model.train_units is None) == (fleet.method.name == "finetune"):
        raise FormatError(f'--fleet {path}: model.train_units and method.name = "finetune" require each other')
    if model.trained_run is not None and model.trained_run[0] > model.trained_run[1]:
        raise FormatError(f"--fleet {path}: model.train_units: {model.train_units} ends before it begins")
    if model.train_units is not None and model.partition is not None:
        raise FormatError(f"--fleet {path}: model.train_units cannot be combined with model.partition")


def _beside(fleet: Fleet, folder: Path) -> Fleet:
    """With the file of initial weights as it lies beside the fleet file, where it does."""
    given = fleet.model.initial_weights
    if given is None or not (folder / given).is_file():
        return fleet
    model = msgspec.structs.replace(fleet.model, initial_weights=str((folder / given).absolute()))
    return msgspec.structs.replace(fleet, model=model)


def _check_clients(fleet: Fleet, path: Path, *, joining: bool) -> None:
    """By name or by number; of a federation neither."""
    if joining and (fleet.named or fleet.population is not None):
        raise FormatError(
            f"--fleet {path}: the clients of --engine flower are the devices that join; leave [[clients]] and "
            "[population] out"
        )
    if not joining and bool(fleet.named) == (fleet.population is not None):
        raise FormatError(f"--fleet {path}: write either [[clients]], at least one, or [population]")


def _check_population(fleet: Fleet, values: dict[str, Any], path: Path) -> None:
    """Bounds of memory in order, and classes that a population has, each once."""
    kinds = [(f"classes: {kind.name}: ", kind.memory_mb) for kind in fleet.classes]
    if fleet.population is not None:
        kinds.append(("population.", fleet.population.memory_mb))
    for key, (low, high) in kinds:
        if low > high:
            raise FormatError(f"--fleet {path}: {key}memory_mb: {low} is larger than {high}")
    if not fleet.classes:
        return
    if fleet.population is None:
        raise FormatError(f"--fleet {path}: [[classes]] requires [population], which has their number")
    if "memory_mb" in values["population"]:
        raise FormatError(
            f"--fleet {path}: population.memory_mb cannot be combined with [[classes]], which have theirs"
        )
    if len({kind.name for kind in fleet.classes}) != len(fleet.classes):
        raise FormatError(f"--fleet {path}: two classes have the same name")
