"""One row of what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "missing"]
"""`note`: training works, but not as well or not with everything. `missing`: something does not work."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one thing.

    Attributes:
        name: the thing.
        found: what is there, in a few words.
        state: how good that is.
        remedy: what to do about it, empty where nothing is to be done.
        stops: training cannot work without it.
    """

    name: str
    found: str
    state: State = "ok"
    remedy: str = ""
    stops: bool = False
