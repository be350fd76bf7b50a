"""Small networks, each around one thing that people write: `PROBES` by name.

The export takes every one of them, and trains it as PyTorch does; those of `REFUSED` it names, and what works.
"""

from __future__ import annotations

from tests.support.probes.elements import OF_ELEMENTS
from tests.support.probes.images import OF_IMAGES
from tests.support.probes.probe import Probe
from tests.support.probes.refused import REFUSED
from tests.support.probes.tokens import OF_TOKENS

__all__ = ["PROBES", "REFUSED", "Probe"]

PROBES: dict[str, Probe] = {**OF_TOKENS, **OF_ELEMENTS, **OF_IMAGES}
