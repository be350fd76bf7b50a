"""Reads a fleet file: what is wrong in it is one line with its key."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from device_profiles.errors import FormatError
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.wrong_values import explained
from server.fleet.fleet import ClientSettings, Fleet, PopulationSettings


def read_fleet(path: Path) -> Fleet:
    """Read a fleet file; raises FormatError, naming the file and the field."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"--fleet {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"--fleet {path}: {error}") from None
    return fleet_of(values, path)


def fleet_of(values: dict[str, Any], path: Path) -> Fleet:
    """The fleet that the parsed file says, checked; `path` is named in what is wrong, now and later."""
    fleet = _checked(values, path)
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


def _checked(values: dict[str, Any], path: Path) -> Fleet:
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
    names = [client.name for client in fleet.clients]
    if len(set(names)) != len(names):
        raise FormatError(f"--fleet {path}: two clients have the same name")
    if bool(fleet.clients) == (fleet.population is not None):
        raise FormatError(f"--fleet {path}: write either [[clients]], at least one, or [population]")
    if fleet.training.cache_prefix != "none" and fleet.training.augment != "none":
        raise FormatError(f"--fleet {path}: training.cache_prefix cannot be combined with training.augment")
    if fleet.training.clip_norm > 0 and fleet.training.proximal > 0:
        raise FormatError(f"--fleet {path}: training.clip_norm cannot be combined with training.proximal")
    if fleet.training.nesterov and fleet.training.momentum == 0:
        raise FormatError(f"--fleet {path}: training.nesterov requires training.momentum above 0")
    if fleet.promises.source == "file" and fleet.promises.file is None:
        raise FormatError(f"--fleet {path}: promises.source 'file' requires promises.file")
    if fleet.population is not None:
        low, high = fleet.population.memory_mb
        if low > high:
            raise FormatError(f"--fleet {path}: population.memory_mb: {low} is larger than {high}")
        fleet = msgspec.structs.replace(fleet, clients=_draw(fleet.population))
    wrong = fleet.contradiction()
    if wrong is not None:
        raise FormatError(str(wrong), place=f"--fleet {path}")
    return fleet


def _draw(population: PopulationSettings) -> tuple[ClientSettings, ...]:
    low, high = population.memory_mb
    drawn = np.random.default_rng(population.seed).integers(low, high, size=population.count, endpoint=True)
    return tuple(ClientSettings(name=f"client{number:03d}", limit_mb=int(mb)) for number, mb in enumerate(drawn))
