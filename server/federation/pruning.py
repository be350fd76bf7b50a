"""Keeps the SuperLink's database small."""

from pathlib import Path


def prune(database: Path) -> None:
    """."""
