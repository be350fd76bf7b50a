"""A table of a page, which a phone shows as one paragraph a row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape


def records(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: Collection[tuple[int, int]] = frozenset()
) -> str:
    """Rows below their titles; cells that are `marked`, by row and column, stand out."""
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr>{''.join(_cell(head[x], text, (y, x) in marked, first=x == 0) for x, text in enumerate(row))}</tr>"
        for y, row in enumerate(rows)
    )
    return f'<table class="records"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


def _cell(title: str, text: str, marked: bool, *, first: bool) -> str:
    if first:
        return f"<td>{escape(text)}</td>"
    kind = "number marked" if marked else "number"
    return f'<td class="{kind}" data-title="{escape(title)}">{escape(text)}</td>'
