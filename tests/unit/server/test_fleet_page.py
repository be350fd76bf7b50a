"""docs/fleet.md has every section and option of the fleet file, with its type, bounds and default."""

from __future__ import annotations

import json
import re
import tomllib
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from server.fleet.fleet import Fleet
from server.fleet.reading import fleet_of

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "fleet.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z0-9_]+)` \| (.+?) \| (.+?) \| (.+) \|$")
NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def _struct_of(kind: Any) -> type[msgspec.Struct] | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for part in get_args(kind) if (found := _struct_of(part)) is not None), None)


def _sections() -> dict[str, type[msgspec.Struct]]:
    hints = get_type_hints(Fleet, include_extras=True)
    kinds = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(Fleet)}
    return {name: found for name, kind in kinds.items() if (found := _struct_of(kind)) is not None}


def _type_text(kind: Any) -> str:
    """As the page writes it: `whole number, at least 1`."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *metas = get_args(kind)
        bounds = []
        for meta in metas:
            bounds += [f"above {meta.gt:g}"] if meta.gt is not None else []
            if meta.ge is not None and meta.le is not None:
                bounds.append(f"{meta.ge:g} to {meta.le:g}")
            elif meta.ge is not None:
                bounds.append(f"at least {meta.ge:g}")
            elif meta.le is not None:
                bounds.append(f"at most {meta.le:g}")
            bounds += [f"below {meta.lt:g}"] if meta.lt is not None else []
        return ", ".join([_type_text(inner), *bounds])
    if origin is Literal:
        return ", ".join(f"`{name}`" for name in get_args(kind))
    if origin in (Union, types.UnionType):
        return _type_text(next(part for part in get_args(kind) if part is not type(None)))
    if origin is tuple:
        parts = get_args(kind)
        counted = "list" if Ellipsis in parts else f"list of {len(parts)}"
        return f"{counted}; each: {_type_text(parts[0])}"
    return NAMES[kind]


def _default_text(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is None:
        return "none"
    return f"`{json.dumps(field.default)}`".replace(".0`", "`")


def _rows(section: str) -> dict[str, tuple[str, str, str]]:
    """Type, default and meaning by option, below the heading of `section`."""
    found = re.search(rf"^## .*`\[+{section}\]+`$(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/fleet.md: no section {section}"
    rows = [match for line in found[1].splitlines() if (match := ROW.match(line))]
    return {row[1]: (row[2], row[3], row[4]) for row in rows}


@pytest.mark.parametrize(
    ("section", "field"),
    [
        pytest.param(section, field.name, id=f"{section}.{field.name}")
        for section, kind in _sections().items()
        for field in msgspec.structs.fields(kind)
    ],
)
def test_every_option_is_on_the_page_with_its_type_and_default(section: str, field: str) -> None:
    rows = _rows(section)
    assert field in rows, f"docs/fleet.md: {section}.{field} is missing"
    kind = _sections()[section]
    info = next(known for known in msgspec.structs.fields(kind) if known.name == field)
    hint = get_type_hints(kind, include_extras=True)[field]
    assert rows[field][:2] == (_type_text(hint), _default_text(info))
    assert len(rows[field][2]) > 10


def test_options_outside_of_sections_are_on_the_page() -> None:
    for field in msgspec.structs.fields(Fleet):
        if field.encode_name not in _sections():
            hint = get_type_hints(Fleet, include_extras=True)[field.name]
            assert f"| `{field.name}` | {_type_text(hint)} | {_default_text(field)} |" in PAGE


def test_an_option_that_is_missing_would_be_found() -> None:
    with pytest.raises(AssertionError, match=r"training.steps is missing"):
        assert "steps" in _rows("model"), "docs/fleet.md: training.steps is missing"
    with pytest.raises(AssertionError, match="no section surplus"):
        _rows("surplus")


def test_the_example_of_the_page_is_a_fleet_file_with_every_section() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    values = tomllib.loads(example)
    fleet = fleet_of(values, Path("docs/fleet.md"))
    assert set(values) >= set(_sections()) - {"clients", "classes", "privacy"} and fleet.population is not None
