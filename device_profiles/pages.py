"""What all pages have in common, those of devices and those of the server: one style, and no way out of the page."""

from __future__ import annotations

from pathlib import Path

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-Security-Policy: no script, no font, no picture from anywhere else."""


def page_style() -> str:
    """Colours for a light and a dark screen and for paper, type, and tables that fold on a phone."""
    return Path(__file__).with_name("data").joinpath("page.css").read_text(encoding="utf-8")
