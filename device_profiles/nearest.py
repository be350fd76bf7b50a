"""What somebody meant who wrote a name that there is not."""

from __future__ import annotations

from collections.abc import Collection


def nearest(name: str, known: Collection[str]) -> list[str]:
    """The names of `known` that look like `name`, the nearest first; at most three."""
    import difflib  # only where something is wrong: commands stay light

    return difflib.get_close_matches(name, known, n=3)


def meant(name: str, known: Collection[str]) -> str:
    """`did you mean train?`, or all names there are where none is near."""
    near = nearest(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
