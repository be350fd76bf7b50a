"""JSON and tables without the modules for them."""

from __future__ import annotations

MEGABYTE = 1 << 20
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def json_text(value: object) -> str:
    """`value` as JSON: None, truth values, finite numbers, strings, lists and dicts of such."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if isinstance(value, float) and value - value != 0:
            raise ValueError(f"JSON has no {value}")
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join([_ESCAPES.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in value]) + '"'
    if isinstance(value, list | tuple):
        return "[" + ",".join([json_text(item) for item in value]) + "]"
    if isinstance(value, dict):
        return "{" + ",".join([f"{json_text(str(key))}:{json_text(item)}" for key, item in value.items()]) + "}"
    raise TypeError(f"JSON has no {type(value).__name__}")


def megabytes(count: int) -> str:
    """Bytes as megabytes of 1,048,576."""
    return f"{count / MEGABYTE:.1f} MB"


def megabytes_up(count: int) -> str:
    """The same, rounded up: a limit that is set to what is printed is not below it."""
    return f"{tenths_up(count)} MB"


def tenths_up(count: int) -> str:
    """The number of it, for columns in MB."""
    return f"{-(-count * 10 // MEGABYTE) / 10:.1f}"


def one_line(text: str) -> str:
    """The words of `text` on one line."""
    return " ".join(text.split())
