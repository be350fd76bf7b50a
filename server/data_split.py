"""Cut a data set into the clients' parts; deterministic from the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import DataError, ProflError
from edge_runtime.device.data.npz import write_npz
from edge_runtime.device.data.open import open_pixels
from edge_runtime.device.data.source import Pixels
from server.fleet import DataSettings

Indices = NDArray[np.int64]


def choose_source(settings: DataSettings) -> tuple[str, list[str]]:
    """The first source that is there, and why earlier ones are not; raises DataError when none is."""
    missing = []
    for source in settings.sources:
        try:
            open_pixels(source, split="train")
        except ProflError as error:
            missing.append(f"{source}: {error}")
        else:
            return source, missing
    raise DataError(f"data.sources: none can be read ({'; '.join(missing)})")


def split_indices(labels: NDArray[np.int64], clients: int, settings: DataSettings) -> list[Indices]:
    """Examples of each client, disjoint, sorted.

    `iid`: shuffled and dealt; `shards`: two label-sorted shards a client; `dirichlet`: for every class, shares from
    Dirichlet(alpha).
    """
    generator = np.random.default_rng(settings.seed)
    order = generator.permutation(len(labels))
    if settings.split == "iid":
        parts = [order[client::clients] for client in range(clients)]
    elif settings.split == "shards":
        ordered = order[np.argsort(labels[order], kind="stable")]
        shards = np.array_split(ordered, 2 * clients)
        dealt = generator.permutation(2 * clients)
        parts = [np.concatenate([shards[dealt[2 * c]], shards[dealt[2 * c + 1]]]) for c in range(clients)]
    else:
        lists: list[list[Indices]] = [[] for _ in range(clients)]
        for label in np.unique(labels):
            own = order[labels[order] == label]
            bounds = (np.cumsum(generator.dirichlet([settings.alpha] * clients)) * len(own)).astype(int)[:-1]
            for client, part in enumerate(np.split(own, bounds)):
                lists[client].append(part)
        parts = [np.concatenate(pieces) for pieces in lists]
    limit = settings.examples_per_client
    return [np.sort(part if limit is None else part[:limit]) for part in parts]


def write_parts(source: str, folder: Path, clients: list[str], settings: DataSettings) -> dict[str, Path]:
    """Write each client's part as npz below `folder` (kept where it is there already); returns them by client."""
    paths = {client: folder / f"{client}.npz" for client in clients}
    if all(path.is_file() for path in paths.values()):
        return paths
    pixels = open_pixels(source, split="train")
    labels = np.asarray(pixels.labels)
    for client, indices in zip(clients, split_indices(labels, len(clients), settings), strict=True):
        if len(indices) == 0:
            raise DataError(f"data.split: {client} gets no examples; use fewer clients or another split")
        write_npz(paths[client], _read(pixels, indices), labels[indices])
    return paths


def _read(pixels: Pixels, indices: Indices) -> NDArray[np.uint8]:
    images = np.empty((len(indices), *pixels.shape), np.uint8)
    for position, index in enumerate(indices):
        pixels.read(int(index), images[position])
    return images
