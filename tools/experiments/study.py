"""A study: one base configuration, data splits, methods and seeds, as a TOML file below `studies/`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.errors import FormatError, UsageError
from device_profiles.wrong_values import explained
from server.fleet.fleet import Fleet
from server.fleet.reading import fleet_of

STUDIES = Path(__file__).parent / "studies"


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file.

    Attributes:
        title: what the tables are headed with.
        about: what it is and is not, for the page.
        seeds: of initial weights, client choice and data split alike.
        target_accuracy: whose rounds and device-seconds are reported.
        base: sections of a fleet file.
        splits: sections that differ between tables, by name.
        methods: sections that differ between rows, by name; the first is the one that others are compared with.
    """

    title: str
    about: str
    seeds: tuple[int, ...]
    target_accuracy: float
    base: dict[str, Any]
    splits: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One run of a study."""

    split: str
    method: str
    seed: int
    fleet: Fleet

    @property
    def folder(self) -> str:
        """Where it lies below the study's output."""
        return run_folder(self.split, self.method, self.seed)


def read_study(name: str) -> Study:
    """A study by its name, or a file; raises FormatError or UsageError."""
    path = Path(name) if name.endswith(".toml") else STUDIES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in STUDIES.glob("*.toml")))
        raise UsageError(f"study {name}: not known (there are: {known})")
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Study, strict=True)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise FormatError(f"{path}: {explained(error, Study)}") from None


def cases(study: Study, name: str) -> Iterator[Case]:
    """Every run, seed by seed, so that what is finished of a broken-off study can be compared."""
    for seed in study.seeds:
        for split, split_sections in study.splits.items():
            for method, method_sections in study.methods.items():
                merged = _merge(_merge(study.base, split_sections), method_sections)
                seeds = {"model": {"seed": seed}, "data": {"seed": seed}, "training": {"seed": seed}}
                fleet = fleet_of(_merge(merged, seeds), Path(f"study {name}: {method}"))
                yield Case(split=split, method=method, seed=seed, fleet=fleet)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def run_folder(split: str, method: str, seed: int) -> str:
    """Where a run lies below its study's output."""
    return f"{slug(split)}/{slug(method)}/seed{seed}"


def slug(text: str) -> str:
    """A name of a file or folder."""
    return "".join(character if character.isalnum() else "-" for character in text.lower()).strip("-")
