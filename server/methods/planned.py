"""Suffixes of units in as few steps as the fleet allows: a method of our own, and FedPMT, which it goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from device_profiles.model import Partition
from device_profiles.work import Work, grow, suffixes
from server.fleet.client import Client
from server.fleet.fleet import Fleet, FreezingSettings, MethodSettings
from server.methods.method import Stage, budget_of, held_frozen

FALL = 0.8
"""A step ends when effective movement has fallen to this share of its largest value, unless the fleet file says."""


class Planned:
    """Every client trains the longest run of units up to the step's end that it holds, behind units that others train.

    The steps are chosen by `server.planner.steps` where the fleet file names no partition: one, if enough clients hold
    every unit together with all behind it; else as few as let enough clients train each unit, as in ProFL, with
    stand-ins for what lies behind a step. Who holds no unit trains the output module alone. A unit goes
    towards the average over those who trained it, by the square root of their share (`damped`), unless `counts_frozen`
    says how those count who held it frozen. A step ends when its movement has become flat and has fallen as well
    (`freezing.fall`, `freezing.level`).
    """

    name = "planned"
    source = "this project; suffixes as in FedPMT, steps as in ProFL"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Every suffix of every step, and the output module behind each."""
        return tuple(work for block in partition.blocks for work in suffixes(partition, block.index))

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One a step, from the first to the last."""
        steps, budget = len(partition.blocks), fleet.training.rounds
        rounds = fleet.freezing.max_rounds
        if self._settings.freezing == "equal" and budget is not None:
            rounds = max(1, budget // steps)
        freezing = _with_fall(fleet.freezing) if self._settings.freezing == "movement" else None
        stages = [
            Stage(
                name="grow",
                block=block.index,
                choices=suffixes(partition, block.index),
                evaluated=grow(partition, block.index),
                rounds=rounds,
                freezing=freezing,
                held_frozen=held_frozen(self._settings, "damped"),
            )
            for block in partition.blocks
        ]
        if budget is not None:
            stages[-1] = replace(stages[-1], takes_the_rest=True)
        return tuple(stages)

    def final(self, partition: Partition) -> Work:
        """The whole model."""
        return grow(partition, len(partition.blocks))


def _with_fall(settings: FreezingSettings) -> FreezingSettings:
    if settings.fall is not None or settings.level is not None:
        return settings
    return msgspec.structs.replace(settings, fall=FALL)


class FedPMT:
    """Every client trains as many of the last units as it holds, all through the run, and freezes those before.

    As published, a tensor is averaged over those alone who trained it. What is our choice: runs are of units, and the
    average is weighted by examples.
    """

    name = "fedpmt"
    source = "Wang, Narayana, Wu, Model-heterogeneous Federated Learning with Partial Model Training, ICCC 2023"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Every suffix of the model, and the head."""
        return suffixes(partition, len(partition.blocks))

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One, of the round budget."""
        last = len(partition.blocks)
        return (
            Stage(
                name="train",
                block=0,
                choices=suffixes(partition, last),
                evaluated=grow(partition, last),
                rounds=budget_of(fleet, self.name),
            ),
        )

    def final(self, partition: Partition) -> Work:
        """The whole model."""
        return grow(partition, len(partition.blocks))
