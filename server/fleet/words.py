"""Errors in the words of the fleet file: its name and its keys, instead of options of other commands."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from device_profiles.errors import DataError, FormatError, UsageError

_KEYS = {
    "model": "model.name",
    "width": "model.width",
    "classes": "model.classes",
    "batch": "model.batch",
    "head": "model.head",
    "input-dtype": "model.input_dtype",
    "partition": "model.partition",
    "data": "data.sources",
    "augment": "training.augment",
    "proximal": "training.proximal",
    "clip-norm": "training.clip_norm",
}
"""Fleet keys that are options of `profl-edge`."""
_SECTIONS = ("model", "data", "clients", "population", "method", "training", "freezing", "promises", "simulation")


@contextmanager
def in_words_of(origin: str, model: str) -> Iterator[None]:
    """Errors of the body name the fleet file `origin` and its keys where they are about them, or about its `model`."""
    try:
        yield
    except (UsageError, FormatError, DataError) as error:
        text = translated(str(error))
        if text.startswith("the model "):
            text = f"model.name {model}: {text}"
        if not re.match(rf"(?:{'|'.join(_SECTIONS)})[. :]", text) and text == str(error):
            raise
        raise type(error)(f"{origin}: {text}") from None


def translated(text: str) -> str:
    """`text` with options of `profl-edge export` and `train` as keys of the fleet file."""
    text = re.sub(r"^partition(?=:)", "model.partition", text)
    text = text.replace("with --head MODULE", "as model.head")
    text = re.sub(r"export the model with (?=--)", "set ", text)
    text = re.sub(r"write --input as ([a-z ]+), (\d+(?:x\d+)*)", _shape_to_write, text)
    text = re.sub(r"--input (\d+(?:x\d+)*)", lambda found: f"model.input_shape = {_extents(found[1])}", text)
    text = re.sub(r"--(" + "|".join(_KEYS) + r")\b(?!-)", lambda found: _KEYS[found[1]], text)
    return re.sub(r"\bset (model\.\w+)(?: =)? ", r"set \1 to ", text)


def _shape_to_write(found: re.Match[str]) -> str:
    return f"write model.input_shape as {found[1]}, such as {_extents(found[2])}"


def _extents(text: str) -> str:
    return f"[{text.replace('x', ', ')}]"


def explained(error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> str:
    """What msgspec says of a wrong value, with the key in front, and the names there are for one that is unknown."""
    message, _, where = str(error).partition(" - at `")
    keys = [key for key in re.sub(r"\[[^]]*\]", "", where.rstrip("`")).split(".") if key not in ("$", "")]
    path = ".".join(keys)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        known = [field.name for field in msgspec.structs.fields(_struct_at(kind, keys))]
        near = difflib.get_close_matches(unknown[1], known, n=3)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        return f"{'.'.join([*keys, unknown[1]])}: is not known here; {remedy}"
    if value := re.fullmatch(r"Invalid enum value (.*)", message):
        allowed = ", ".join(str(name) for name in _literals(_type_at(kind, keys)))
        return f"{path}: {value[1]} is none of {allowed}"
    return f"{path}: {message}" if path else message


def _type_at(kind: object, keys: list[str]) -> object:
    """The type of the field that `keys` lead to, from the struct `kind`; through `X | None` and tuples."""
    for key in keys:
        kind = get_type_hints(_struct_in(kind))[key]
    return kind


def _struct_at(kind: type[msgspec.Struct], keys: list[str]) -> type[msgspec.Struct]:
    return _struct_in(_type_at(kind, keys))


def _struct_in(kind: object) -> type[msgspec.Struct]:
    found: type[msgspec.Struct] = next(_parts(kind, lambda t: isinstance(t, type) and issubclass(t, msgspec.Struct)))
    return found


def _literals(kind: object) -> tuple[object, ...]:
    return next((get_args(t) for t in _parts(kind, lambda t: get_origin(t) is Literal)), ())


def _parts(kind: Any, wanted: Callable[[Any], bool]) -> Iterator[Any]:
    if wanted(kind):
        yield kind
    for part in get_args(kind):
        yield from _parts(part, wanted)
