"""What msgspec says of a document that is not as it should be, in our own words.

Its errors have no structure, only a text: `` MESSAGE - at `$.clients[1].limit` ``. This is the one place that reads it,
for every strict reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from device_profiles.nearest import meant

_AT = " - at `"
_UNKNOWN = "Object contains unknown field `"
_MISSING = "Object missing required field `"
_NOT_ALLOWED = "Invalid enum value "
_EXPECTED, _GOT, _MATCHING, _LENGTH = "Expected `", "`, got `", " matching regex ", " of length "
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "nothing",
}
_BOUNDS = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}


def explained(error: Exception, kind: object) -> str:
    """What is wrong with a document of the type `kind`: the key first, and the names there are for one that is not.

    Errors that are none of msgspec's own, or that say nothing of a place, keep their text.
    """
    message, _, where = str(error).partition(_AT)
    path = where.removesuffix("`").removeprefix("$").removeprefix("[...]").removeprefix(".")
    below = f"{path}." if path else ""
    keys = [key for step in path.replace("[...]", "").split(".") if (key := step.partition("[")[0])]
    if message.startswith(_UNKNOWN) and (struct := _struct_at(kind, keys)) is not None:
        name = message[len(_UNKNOWN) : -1]
        known = [field.encode_name for field in msgspec.structs.fields(struct)]
        return f"{below}{name}: is not known here; {meant(name, known)}"
    if message.startswith(_MISSING):
        return f"{below}{message[len(_MISSING) : -1]}: is missing"
    if message.startswith(_NOT_ALLOWED) and (literals := _literals_at(kind, keys)):
        return f"{path}: {message[len(_NOT_ALLOWED) :]} is none of {', '.join(map(str, literals))}"
    said = _expected(message, _type_at(kind, keys) if keys else None)
    return f"{path}: {said}" if path else said


def _expected(message: str, kind: object) -> str:
    """What is said of a value that is not as it should be, without the names of types and patterns."""
    if not message.startswith(_EXPECTED):
        return message
    names, _, rest = message[len(_EXPECTED) :].partition("`")
    if _GOT in message:
        got = _KINDS.get(message.partition(_GOT)[2].removesuffix("`"), "something else")
        return f"is {got}, must be {_one_of(names)}"
    if rest.startswith(_MATCHING):
        described = next(_parts(kind, lambda t: isinstance(t, msgspec.Meta) and bool(t.description)), None)
        return f"must be {described.description}" if described is not None else "is not of the form that it must have"
    if rest.startswith(_LENGTH):
        wanted, _, got = rest[len(_LENGTH) :].partition(", got ")
        return f"has length {got}, must have {_bound(wanted)}" if got else f"must have a length of {_bound(wanted)}"
    return f"must be {_bound(rest.strip())}"


def _one_of(names: str) -> str:
    """`int | null`: a whole number. What is absent is left out, so that nothing else is proposed."""
    kinds = [name for name in names.split(" | ") if name != "null"]
    return " or ".join(_KINDS.get(name, name) for name in kinds)


def _bound(text: str) -> str:
    """`>= 1.0` as `at least 1`; another text stays."""
    sign, _, number = text.rpartition(" ")
    return f"{_BOUNDS.get(sign, sign)} {number.removesuffix('.0')}".strip()


def is_other_document(error: Exception) -> bool:
    """Whether the outermost object lacks a field or has an unknown one, or is none: it is some other document."""
    message = str(error)
    return message.startswith(("Object ", "Expected `object`")) and _AT not in message


def _type_at(kind: object, keys: list[str]) -> object:
    """The type of the field that `keys` lead to, through `X | None`, tuples and dicts; None where there is none."""
    for key in keys:
        struct = _struct_in(kind)
        if struct is None:
            return None
        names = {field.encode_name: field.name for field in msgspec.structs.fields(struct)}
        if key not in names:
            return None
        kind = get_type_hints(struct, include_extras=True)[names[key]]
    return kind


def _struct_at(kind: object, keys: list[str]) -> type[msgspec.Struct] | None:
    return _struct_in(_type_at(kind, keys))


def _struct_in(kind: object) -> type[msgspec.Struct] | None:
    found: type[msgspec.Struct] | None = next(
        _parts(kind, lambda t: isinstance(t, type) and issubclass(t, msgspec.Struct)), None
    )
    return found


def _literals_at(kind: object, keys: list[str]) -> tuple[object, ...]:
    return next((get_args(t) for t in _parts(_type_at(kind, keys), lambda t: get_origin(t) is Literal)), ())


def _parts(kind: Any, wanted: Callable[[Any], bool]) -> Iterator[Any]:
    if wanted(kind):
        yield kind
    for part in get_args(kind):
        yield from _parts(part, wanted)
