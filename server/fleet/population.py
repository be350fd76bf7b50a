"""Clients by number: names and limits that a few lines of the fleet file stand for, in columns.

A million clients are read at once as two columns; they become objects only where an engine asks for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import UsageError

Positive = Annotated[int, msgspec.Meta(ge=1)]
ClientName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+$", description="letters, digits, _ and -")]


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device: its name and its hard memory limit."""

    name: ClientName
    limit_mb: Annotated[float, msgspec.Meta(gt=0)]

    @property
    def limit_bytes(self) -> int:
        """The limit in bytes; 1 MB = 1,048,576 bytes."""
        return int(self.limit_mb * (1 << 20))


class PopulationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clients by number instead of by name: memory is drawn uniformly from whole MB between both bounds."""

    count: Positive
    memory_mb: tuple[Positive, Positive] = (100, 900)
    seed: int = 0


class ClassSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of device in a population: how common it is beside the others, and its own bounds of memory."""

    name: ClientName
    share: Annotated[float, msgspec.Meta(gt=0)]
    memory_mb: tuple[Positive, Positive]


class NameRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names that are counted: `prefix000`, `prefix001` and so on, `count` of them."""

    prefix: str
    count: Annotated[int, msgspec.Meta(ge=0)]

    def name(self, number: int) -> str:
        """One of them."""
        return f"{self.prefix}{number:03d}"


def name_runs(population: PopulationSettings, classes: Sequence[ClassSettings]) -> tuple[NameRun, ...]:
    """The clients' names, in their order: those of a class follow each other."""
    if not classes:
        return (NameRun(prefix="client", count=population.count),)
    counts = _counts(population.count, [kind.share for kind in classes])
    return tuple(NameRun(prefix=f"{kind.name}-", count=n) for kind, n in zip(classes, counts, strict=True))


def no_client(client: str, names: Sequence[str]) -> UsageError:
    """For the name of a client that there is not: says what the first and the last of `names` are."""
    there = f"; their names go from {names[0]} to {names[-1]}" if names else ""
    return UsageError(f"the fleet has no client {client!r}{there}")


def limits_mb(population: PopulationSettings, classes: Sequence[ClassSettings]) -> NDArray[np.int64]:
    """The clients' limits in MB, [count], in the order of their names."""
    generator = np.random.default_rng(population.seed)
    bounds = [kind.memory_mb for kind in classes] or [population.memory_mb]
    runs = name_runs(population, classes)
    drawn = [
        generator.integers(low, high, size=run.count, endpoint=True)
        for (low, high), run in zip(bounds, runs, strict=True)
    ]
    return np.concatenate(drawn)


def drawn(population: PopulationSettings, classes: Sequence[ClassSettings]) -> tuple[ClientSettings, ...]:
    """The same as objects, one for each client."""
    names = (run.name(number) for run in name_runs(population, classes) for number in range(run.count))
    limits = limits_mb(population, classes).tolist()
    return tuple(ClientSettings(name=name, limit_mb=mb) for name, mb in zip(names, limits, strict=True))


def _counts(count: int, shares: Sequence[float]) -> list[int]:
    """`count` in parts as large as `shares`; what rounding leaves goes to the largest remainders."""
    exact = np.asarray(shares) / np.sum(shares) * count
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")
    counts[largest[: count - int(counts.sum())]] += 1
    return [int(part) for part in counts]
