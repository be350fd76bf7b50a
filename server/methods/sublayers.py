"""Parts of every layer: the whole network is run, and each client trains as many rows of its layers as it holds."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.model import Partition
from device_profiles.work import Sublayers, Work
from server.fleet.client import Client
from server.fleet.fleet import Fleet, MethodSettings
from server.methods.method import Stage, budget_of

SUBLAYERS = 8
"""Parts that every layer is divided into."""
_SHARES: tuple[Work, ...] = tuple(Sublayers(ratio=part / SUBLAYERS) for part in range(SUBLAYERS, 0, -1))


class FedPLT:
    """Every layer is divided into sub-layers of equal size, and a client trains as many of each as its memory holds.

    As published: sub-layers of equal size, assigned to clients by a fixed strategy, the more the more a client can do;
    a value is averaged over those who trained it. What the paper's abstract leaves open is our choice: a sub-layer is
    an eighth of a layer's rows (output channels); the clients begin at one of them in turn, and those that train more
    go on from there, around the end. Frozen rows are computed, and gradients pass through them, so the activations of
    the whole network must fit everybody who takes part: what a client saves is momentum and gradients.
    """

    name = "fedplt"
    source = "Dabaja, El-Azouzi, FedPLT, arXiv 2605.02337, 2026"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Every number of sub-layers."""
        return _SHARES

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One, of the round budget."""
        rounds = budget_of(fleet, self.name)
        return (Stage(name="train", block=0, choices=_SHARES, evaluated=_SHARES[0], rounds=rounds),)

    def final(self, partition: Partition) -> Work:
        """The whole network."""
        return _SHARES[0]
