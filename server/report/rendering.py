"""Templates of the server's pages; what they are given is escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from device_profiles.pages import POLICY, page_style
from server.report.text import shown

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,  # names come from folders and files of strangers
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["shown"] = shown
_TEMPLATES.globals["page_policy"] = Markup(POLICY)
_TEMPLATES.globals["page_style"] = Markup(page_style())


def render(template: str, **values: object) -> str:
    """The text of a file of `templates/` with these values."""
    return _TEMPLATES.get_template(template).render(values)
