"""What stands behind the question mark of a data set: `csv:FILE?label=species&test=0.2`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from device_profiles.errors import UsageError


def place_and_options(location: str, spec: str, known: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """The file or folder of `location`, and the options behind its question mark, `%26` standing for `&`.

    `known` has the form of every option (`label` -> `label=COLUMN`). A place that is called so, question mark and all,
    is taken as it is. Raises UsageError for an option that is unknown, twice there or empty.
    """
    name, mark, text = location.rpartition("?")
    if not mark or Path(location).exists():
        return Path(location), {}
    options: dict[str, str] = {}
    for part in text.split("&"):
        key, _, value = part.partition("=")
        if key not in known or key in options or not value:
            raise UsageError(
                f"'{part}' is not an option of it, or is there twice",
                field="data",
                value=spec,
                remedy=f"its options are {', '.join(known.values())}",
            )
        options[key] = unquote(value)
    return Path(name), options


def whole_number(options: Mapping[str, str], key: str, default: int, spec: str, *, least: int = 1) -> int:
    """Option `key` as a whole number; raises UsageError where it is none, or less than `least`."""
    text = options.get(key)
    try:
        number = default if text is None else int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(
            f"'{key}={text}' is not a whole number of at least {least}", field="data", value=spec, remedy="correct it"
        )
    return number
