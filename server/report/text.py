"""Text of strangers, as pages and terminals may show it."""

from __future__ import annotations


def shown(text: str) -> str:
    """`text` without the characters that XML does not know, such as those that move a terminal's cursor."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
