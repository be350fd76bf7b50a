"""Results as a table of Markdown, and its place in docs/models.md."""

from __future__ import annotations

from pathlib import Path

from tools.zoo.entries import Result

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- models: made by tools/zoo -->\n", "<!-- end of models -->\n"
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


def write_document(results: list[Result]) -> None:
    """Put the table of `results` in the place of the one in docs/models.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, behind = rest.partition(END)
    DOCUMENT.write_text(before + BEGIN + table(results) + END + behind, encoding="utf-8")
