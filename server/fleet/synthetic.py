"""Fleet files of virtual devices, whose memory is drawn from bounds or from classes of devices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import tomli_w

from device_profiles.errors import FormatError, UsageError
from device_profiles.files import atomic_file
from device_profiles.sizes import MEGABYTE, parse_size
from device_profiles.wrong_values import explained
from server.fleet.population import ClassSettings, Positive
from server.fleet.reading import fleet_of, read_values

_SHIPPED = Path(__file__).parent / "data"
_DEFAULTS = {
    "model": {"name": "cnn", "input_shape": [1, 28, 28]},
    "data": {"sources": ["mnist-5k"]},
    "method": {"name": "planned"},
}
"""What a fleet trains that nobody gave a model: the digits of the README, in steps that the server chooses."""


class DeviceClass(ClassSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of a table of classes: with the device's RAM, and where that is stated."""

    ram_mb: Positive | None = None
    source: str | None = None


class DeviceClasses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of classes."""

    TITLE: ClassVar[str] = "table of device classes"

    classes: Annotated[tuple[DeviceClass, ...], msgspec.Meta(min_length=1)]


def shipped_tables() -> list[str]:
    """Names of the tables that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def read_classes(name: str) -> tuple[DeviceClass, ...]:
    """The rows of a table that comes with the package, or of a file; raises UsageError or FormatError that names it."""
    path = _SHIPPED / f"{name}.toml" if name in shipped_tables() else Path(name)
    if not path.exists():
        known = ", ".join(shipped_tables())
        raise UsageError(f"--memory classes:{name}: is neither a file nor a table that is known ({known})")
    values = read_values(path, "--memory")
    try:
        rows = msgspec.convert(values, DeviceClasses, strict=True).classes
    except msgspec.ValidationError as error:
        raise FormatError(f"--memory {path}: {explained(error, DeviceClasses)}") from None
    for row in rows:
        if row.memory_mb[0] > row.memory_mb[1]:
            raise FormatError(f"--memory {path}: {row.name}: memory_mb: the smaller bound comes first")
    if len({row.name for row in rows}) != len(rows):
        raise FormatError(f"--memory {path}: two classes have the same name")
    return rows


def population_of(memory: str, *, devices: int, seed: int) -> dict[str, Any]:
    """Sections of a fleet file for `uniform:100-900MB` or `classes:TABLE`; raises UsageError for anything else."""
    kind, _, rest = memory.partition(":")
    population: dict[str, Any] = {"count": devices, "seed": seed}
    if kind == "classes" and rest:
        fields = [field.name for field in msgspec.structs.fields(ClassSettings)]
        rows = [{name: msgspec.to_builtins(getattr(row, name)) for name in fields} for row in read_classes(rest)]
        return {"population": population, "classes": rows}
    bounds = re.fullmatch(r"([^-]+)-([^-]+)", rest) if kind == "uniform" else None
    if bounds is None:
        raise UsageError(f"--memory {memory}: write uniform:100-900MB or classes:FILE")
    try:
        high = parse_size(bounds[2])
        low = parse_size(bounds[1] + re.sub(r"[0-9. ]", "", bounds[2]) if bounds[1].isdecimal() else bounds[1])
    except ValueError as error:
        raise UsageError(f"--memory {memory}: {error}") from None
    if low % MEGABYTE or high % MEGABYTE or low > high:
        raise UsageError(f"--memory {memory}: bounds are whole MB, the smaller one first")
    return {"population": population | {"memory_mb": [low // MEGABYTE, high // MEGABYTE]}}


def synthesize(memory: str, *, devices: int, seed: int, like: Path | None, output: Path) -> None:
    """Write a fleet file, of JSON where the name ends so, with the other sections of the fleet file `like`.

    Raises an error of the fleet file's own, before anything is written, where that could not be read again.
    """
    sections: dict[str, Any] = _DEFAULTS if like is None else read_values(like, "--like")
    kept = {key: value for key, value in sections.items() if key not in ("clients", "population", "classes")}
    values = kept | population_of(memory, devices=devices, seed=seed)
    fleet_of(values, output)
    text = msgspec.json.format(msgspec.json.encode(values), indent=2).decode() + "\n"
    if output.suffix != ".json":
        text = tomli_w.dumps(values)
    with atomic_file(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
