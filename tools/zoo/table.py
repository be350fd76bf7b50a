"""Results as a table of Markdown, and its place in docs/models.md."""

from __future__ import annotations

from pathlib import Path

from device_profiles.errors import FormatError
from tools.zoo.entries import Result

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- {}: made by tools/zoo -->\n", "<!-- end of {} -->\n"
"""Lines around the table of a list, by the list's name."""
_LONGEST = 160


def table(results: list[Result]) -> str:
    """How many are exported, then a row a model in the order of the list."""
    exported = [result for result in results if not result.refusal]
    share = len(exported) / len(results) if results else 0.0
    rows = [
        f"{len(exported)} of {len(results)} models are exported ({share:.0%}).",
        "",
        "| model | input | seconds | largest step, MB | loss | refused |",
        "|---|---|---|---|---|---|",
        *map(_row, results),
    ]
    return "\n".join(rows) + "\n"


def _row(result: Result) -> str:
    shape = "x".join(map(str, result.input_shape))
    if result.refusal:
        return f"| `{result.name}` | {shape} | | | | {_short(result.refusal)} |"
    size, loss = result.arena_bytes / 2**20, f"{result.loss_difference:.0e}"
    note = " as one block" if result.only_block else ""
    return f"| `{result.name}` | {shape} | {result.seconds:.1f} | {size:.1f} | {loss} |{note} |"


def _short(text: str) -> str:
    text = text.replace("|", "\\|")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3].rstrip()}..."


def write_document(name: str, results: list[Result]) -> None:
    """Put the table of `results` in the place of that of the list `name` in docs/models.md."""
    begin, end = BEGIN.format(name), END.format(name)
    text = DOCUMENT.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, ended, behind = rest.partition(end)
    if not found or not ended:
        raise FormatError(f"{DOCUMENT.name} has no place for this table; write {begin.strip()} and {end.strip()} there")
    DOCUMENT.write_text(before + begin + table(results) + end + behind, encoding="utf-8")
