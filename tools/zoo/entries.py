"""The list of models that are tried, and what became of each."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.errors import FormatError
from device_profiles.files import read_json, write_json

LIST = Path(__file__).with_name("models.txt")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One model: its name in its package, the shape of one example, and arguments of its factory."""

    name: str
    input_shape: tuple[int, ...]
    arguments: dict[str, int] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an export came to.

    Attributes:
        refusal: the error in one line; empty where the model was exported and verified.
        seconds: of the processor, for the export and its verification, without loading PyTorch.
        arena_bytes: of the largest training step.
        only_block: of a model that is one unit, which was exported as one block.
        loss_difference: between the step's loss and PyTorch's, relative to it.
    """

    name: str
    input_shape: tuple[int, ...]
    refusal: str = ""
    seconds: float = 0.0
    arena_bytes: int = 0
    loss_difference: float = 0.0
    only_block: bool = False


class Results(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is known so far, a result a model."""

    results: list[Result] = []


def entries_in(path: Path, only: str | None = None) -> list[Entry]:
    """The models of a list whose names match the pattern `only`; raises FormatError with the line that is wrong."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, shape, *arguments = line.split()
            pairs = [argument.split("=") for argument in arguments]
            entry = Entry(
                name=name,
                input_shape=tuple(int(extent) for extent in shape.split("x")),
                arguments={key: int(value) for key, value in pairs},
            )
        except ValueError:
            raise FormatError(f"{path}, line {number}: write NAME CxHxW and arguments such as img_size=64") from None
        if only is None or fnmatch.fnmatch(name, only):
            entries.append(entry)
    return entries


def known_results(path: Path) -> dict[str, Result]:
    """The results that an earlier run kept at `path`, by name."""
    return {result.name: result for result in read_json(path, Results).results} if path.exists() else {}


def keep_results(path: Path, results: dict[str, Result]) -> None:
    """Write all results over those at `path`, at once."""
    write_json(path, Results(results=[results[name] for name in sorted(results)]))


def made(package: str, entry: Entry, classes: int) -> Any:
    """The module with random weights."""
    import importlib

    library = importlib.import_module(package)
    return library.create_model(entry.name, pretrained=False, num_classes=classes, **entry.arguments)
