"""What a split gave each client: counts of classes, sizes, and how far clients are from the whole."""

from __future__ import annotations

import msgspec
import numpy as np

from edge_runtime.device.data.open import open_raw
from server.data.split import choose_source, labels_of, split_indices
from server.fleet.fleet import Fleet


class ClientPart(msgspec.Struct, frozen=True, kw_only=True):
    """One device's part.

    Attributes:
        natural: the data set's own client that it is, with the split by them.
        class_counts: examples of each class; none where an example has several labels, or numbers.
        distance: total variation distance between its shares of the classes and those of all the data, 0 to 1.
    """

    client: str
    natural: str | None
    examples: int
    class_counts: tuple[int, ...]
    distance: float


class SplitReport(msgspec.Struct, frozen=True, kw_only=True):
    """A split; `examples` counts the data set, `used` what the clients have of it."""

    source: str
    split: str
    setting: str
    seed: int
    examples: int
    used: int
    classes: int
    distance_mean: float
    clients: tuple[ClientPart, ...]


def report_split(fleet: Fleet) -> SplitReport:
    """Split the fleet's data as a run would; raises DataError where that is not possible."""
    source, _ = choose_source(fleet.data, fleet.model.targets)
    data = open_raw(source, split="train", numbers=fleet.model.targets)
    labels = labels_of(data)
    indices = split_indices(labels, [client.name for client in fleet.clients], fleet.data, data.clients)
    one_class = labels.ndim == 1
    whole = np.bincount(labels, minlength=data.classes) / len(labels) if one_class else np.zeros(0)
    parts = []
    for client in fleet.clients:
        own = indices[client.name]
        counts = np.bincount(labels[own], minlength=data.classes) if one_class else np.zeros(0, int)
        natural = (
            data.clients.names[data.clients.ids[own[0]]] if data.clients and fleet.data.split == "natural" else None
        )
        parts.append(
            ClientPart(
                client=client.name,
                natural=natural,
                examples=len(own),
                class_counts=tuple(counts.tolist()),
                distance=float(np.abs(counts / len(own) - whole).sum() / 2),
            )
        )
    return SplitReport(
        source=source,
        split=fleet.data.split,
        setting=_setting(fleet),
        seed=fleet.data.seed,
        examples=len(labels),
        used=sum(part.examples for part in parts),
        classes=data.classes,
        distance_mean=float(np.mean([part.distance for part in parts])),
        clients=tuple(parts),
    )


def _setting(fleet: Fleet) -> str:
    """The split in words."""
    data = fleet.data
    words = {
        "iid": "independent and identically distributed",
        "shards": f"{data.shards_per_client} label shards a client",
        "dirichlet": f"Dirichlet({data.alpha:g})",
        "natural": "the data set's own clients",
    }[data.split]
    return (
        words if data.examples_per_client is None else f"{words}, at most {data.examples_per_client} examples a client"
    )


def split_table(report: SplitReport) -> str:
    """For a terminal: one line a client, most frequent classes first."""
    width = max(len(part.client) for part in report.clients)
    lines = [
        f"{report.source}, {report.setting}, seed {report.seed}: {report.used} of {report.examples} examples, "
        f"{report.classes} classes; mean distance from the whole {report.distance_mean:.2f}",
        f"{'client':<{width}}{'examples':>10}{'classes':>9}{'distance':>10}  most frequent classes (examples)",
    ]
    for part in report.clients:
        ranked = sorted(range(report.classes), key=lambda label: (-part.class_counts[label], label))
        present = [label for label in ranked if part.class_counts[label]]
        named = ", ".join(f"{label} ({part.class_counts[label]})" for label in present[:4])
        own = f"{part.natural}: " if part.natural else ""
        lines.append(f"{part.client:<{width}}{part.examples:>10}{len(present):>9}{part.distance:>10.2f}  {own}{named}")
    return "\n".join(lines)
