"""What the server's pictures share: matplotlib's settings, the colours, and a figure as the text of an SVG."""

from __future__ import annotations

import io
import re
import warnings

import matplotlib
from matplotlib.figure import Figure

matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # names are strangers' and may hold dollar signs
    }
)
COLOURS = ("#1f5fa8", "#d1802a", "#2e8b57", "#a23b72", "#6b6b6b", "#c0392b", "#7a68c0", "#3aa0a0", "#111111")
FAINT = "#55606e"
"""Of what is said beside the data."""


def svg(figure: Figure, *, cut: bool = True) -> str:
    """The figure as an SVG element, with the same text for the same figure; `cut` takes empty borders off."""
    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "profl"}), warnings.catch_warnings():
        # The page's reader draws the letters, with fonts that have more of them than matplotlib's own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(written, format="svg", metadata={"Date": None}, bbox_inches="tight" if cut else None)
    return re.sub(r"^.*?(?=<svg)", "", written.getvalue(), flags=re.DOTALL)
