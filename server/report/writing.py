"""Write a page where the user asked for it."""

from __future__ import annotations

from pathlib import Path

import click

from device_profiles.files import atomic_file


def write_page(path: Path, page: str) -> None:
    """Write the page whole or not at all, and say so on standard error."""
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    click.echo(f"wrote {path}", err=True)
