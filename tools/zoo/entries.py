"""The list of models that are tried, and what became of each."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.contract import DType
from device_profiles.errors import FormatError
from device_profiles.files import read_json, write_json

LIST = Path(__file__).with_name("models.txt")
OTHERS = Path(__file__).with_name("others.toml")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model.

    Attributes:
        name: in its package; in a list of several packages with the package in front.
        input_shape: of one example.
        input_dtype: int64 for tokens.
        classes: the width of its output, where its package is not told.
        package: installed package that makes it.
        arguments: of its factory or configuration.
        argument: name by which `forward` takes the input; empty for its first one.
        output: name of the logits in what `forward` returns; empty for one that returns them.
    """

    name: str
    input_shape: tuple[int, ...]
    input_dtype: DType = "float32"
    classes: int = 10
    package: str = "timm"
    arguments: dict[str, Any] = {}
    argument: str = ""
    output: str = ""


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
    """The models of a list whose names match the pattern `only`; raises FormatError with what is wrong in it."""
    entries = _in_tables(path) if path.suffix == ".toml" else _in_lines(path)
    return [entry for entry in entries if only is None or fnmatch.fnmatch(entry.name, only)]


def _in_lines(path: Path) -> list[Entry]:
    """Models of timm, one a line."""
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
        entries.append(entry)
    return entries


def _in_tables(path: Path) -> list[Entry]:
    """Models of several packages: a table for each package, and in `like` what several of its models share."""
    try:
        packages = msgspec.toml.decode(path.read_bytes(), type=dict[str, dict[str, dict[str, Any]]])
    except msgspec.MsgspecError as error:
        raise FormatError(f"{path}: {error}") from None
    kinds = packages.pop("like", {})
    return [
        _of_row(path, package, model, row, kinds) for package, rows in packages.items() for model, row in rows.items()
    ]


def _of_row(path: Path, package: str, model: str, row: dict[str, Any], kinds: dict[str, dict[str, Any]]) -> Entry:
    name = f"{package}.{model}"
    kind = row.pop("like", None)
    if kind is not None and kind not in kinds:
        raise FormatError(f"{path}: {name} is like '{kind}', which is none of {', '.join(sorted(kinds))}")
    shared = kinds.get(kind, {})
    arguments = shared.get("arguments", {}) | row.pop("arguments", {})
    try:
        return msgspec.convert({**shared, **row, "name": name, "package": package, "arguments": arguments}, Entry)
    except msgspec.ValidationError as error:
        raise FormatError(f"{path}: {name}: {error}") from None


def known_results(path: Path) -> dict[str, Result]:
    """The results that an earlier run kept at `path`, by name."""
    return {result.name: result for result in read_json(path, Results).results} if path.exists() else {}


def keep_results(path: Path, results: dict[str, Result]) -> None:
    """Write all results over those at `path`, at once."""
    write_json(path, Results(results=[results[name] for name in sorted(results)]))
