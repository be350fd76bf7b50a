"""Cut a data set into the clients' parts; deterministic from the seed, whatever order the clients are named in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import DataError, ProflError, UsageError
from device_profiles.model import Model
from device_profiles.settings import COMMAND_LINE, Setting
from edge_runtime.device.data.arrays import ArraySource
from edge_runtime.device.data.npz_writing import write_arrays, write_npz
from edge_runtime.device.data.open import open_data, open_raw
from edge_runtime.device.prepare.examples import check_examples
from server.fleet.fleet import DataSettings

if TYPE_CHECKING:
    from edge_runtime.device.data.source import Clients, Pixels, Split

Indices = NDArray[np.int64]
Labels = NDArray[Any]
_DRAWS = 1000
"""Of a Dirichlet split, until every client has enough."""


def choose_source(settings: DataSettings, targets: int = 0) -> tuple[str, list[str]]:
    """The first source that is there, and why earlier ones are not; raises DataError when none is.

    Here and below, examples have labels, or so many numbers as `targets`."""
    missing = []
    for source in settings.sources:
        try:
            open_raw(source, split="train", numbers=targets)
        except ProflError as error:
            missing.append(f"{source}: {error.said(COMMAND_LINE, with_field=error.field != 'data')}")
        else:
            return source, missing
    raise DataError(f"none can be read ({'; '.join(missing)})", field="data.sources")


def check_source(source: str, model: Model, *, targets: int = 0, augment: bool) -> None:
    """Refuse data that `model` cannot be trained on, before anything is written: images of another shape or larger than
    its input, labels and tokens that it does not know, images to augment that are none.

    Raises DataError or UsageError, as `profl-edge train` would for every client.
    """
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        data = open_data(
            source,
            split=split,
            input_shape=model.input_shape,
            input_dtype=model.input_dtype,
            targets=targets or model.positions,
            numbers=targets > 0,
        )
        check_examples(data, model)
        if augment and data.image_shape is None:
            raise UsageError(
                f"{source} holds inputs of the model's own, not images",
                field="augment",
                value="crop-flip",
                remedy=("leave ", Setting("augment"), " out, or give images of bytes"),
            )


def split_indices(
    labels: Labels, clients: Sequence[str], settings: DataSettings, natural: Clients | None = None
) -> dict[str, Indices]:
    """Examples of each client by name: disjoint, sorted, and all of them unless `examples_per_client` caps a part.

    `iid`: shuffled and dealt. `shards`: `shards_per_client` runs of the examples sorted by label (McMahan et al.,
    2017). `dirichlet`: for every class, shares of the clients from Dirichlet(alpha) (Hsu et al., 2019), drawn again
    until each client has `min_examples`. `natural`: every client is one of the data set's own, drawn among those with
    at least `min_examples` where there are more of them than clients; the others are left out.

    `labels` [n], or [n, several] of tokens, pixels or numbers, which the splits by class have no use for.

    Raises DataError where a client would have fewer than `min_examples`, with the remedy.
    """
    names = sorted(clients)
    generator = np.random.default_rng(settings.seed)
    if settings.split == "natural":
        parts = _natural(natural, len(names), settings, generator)
    else:
        if len(labels) < len(names) * settings.min_examples:
            raise DataError(
                f"{len(labels)} examples are fewer than {settings.min_examples} for each of {len(names)} clients",
                field="data.min_examples",
                remedy="use fewer clients",
            )
        order = generator.permutation(len(labels))
        if settings.split == "iid":
            parts = [order[client :: len(names)] for client in range(len(names))]
        elif labels.ndim > 1:
            raise DataError(
                "goes by the class of an example, and these have several labels or numbers each",
                field="data.split",
                value=settings.split,
                remedy="use iid or natural",
            )
        elif settings.split == "shards":
            parts = _shards(labels, order, len(names), settings, generator)
        else:
            parts = _dirichlet(labels, order, len(names), settings, generator)
    return {name: _capped(part, settings, generator) for name, part in zip(names, parts, strict=True)}


def _shards(
    labels: NDArray[np.int64], order: Indices, clients: int, settings: DataSettings, generator: np.random.Generator
) -> list[Indices]:
    count = settings.shards_per_client * clients
    if len(labels) // count * settings.shards_per_client < settings.min_examples:
        raise DataError(
            f"{len(labels)} examples are too few for {count} shards that give every client {settings.min_examples}",
            field="data.shards_per_client",
            remedy="use fewer shards or clients",
        )
    ordered = order[np.argsort(labels[order], kind="stable")]
    dealt = generator.permutation(count).reshape(clients, settings.shards_per_client)
    shards = np.array_split(ordered, count)
    return [np.concatenate([shards[shard] for shard in own]) for own in dealt]


def _dirichlet(
    labels: NDArray[np.int64], order: Indices, clients: int, settings: DataSettings, generator: np.random.Generator
) -> list[Indices]:
    classes = [order[labels[order] == label] for label in np.unique(labels)]
    fewest = 0
    for _ in range(_DRAWS):
        shares = generator.dirichlet([settings.alpha] * clients, len(classes))
        bounds = [
            (np.cumsum(share)[:-1] * len(own)).round().astype(int) for share, own in zip(shares, classes, strict=True)
        ]
        sizes = sum(np.diff(bound, prepend=0, append=len(own)) for bound, own in zip(bounds, classes, strict=True))
        if np.min(sizes) >= settings.min_examples:
            cut = [np.split(own, bound) for own, bound in zip(classes, bounds, strict=True)]
            return [np.concatenate([pieces[client] for pieces in cut]) for client in range(clients)]
        fewest = max(fewest, int(np.min(sizes)))
    raise DataError(
        f"no Dirichlet({settings.alpha:g}) split of {_DRAWS} gave each of {clients} clients {settings.min_examples} "
        f"examples (at best {fewest})",
        field="data.alpha",
        remedy="use a larger alpha, fewer clients or fewer min_examples",
    )


def _natural(
    natural: Clients | None, clients: int, settings: DataSettings, generator: np.random.Generator
) -> list[Indices]:
    if natural is None:
        raise DataError(
            "the data set has no clients of its own",
            field="data.split",
            remedy="use iid, shards or dirichlet",
        )
    ids = np.asarray(natural.ids)
    counts = np.bincount(ids, minlength=len(natural.names))
    enough = np.flatnonzero(counts >= settings.min_examples)
    if len(enough) < clients:
        raise DataError(
            f"{len(enough)} clients of the data set have {settings.min_examples} examples, the fleet has {clients}",
            field="data.split",
            remedy="use fewer clients or fewer min_examples",
        )
    # All of them in their own order, so that a fleet named alike gets its namesakes; else a draw.
    chosen = enough if len(enough) == clients else np.sort(generator.choice(enough, clients, replace=False))
    return [np.flatnonzero(ids == client) for client in chosen]


def _capped(part: Indices, settings: DataSettings, generator: np.random.Generator) -> Indices:
    """At most `examples_per_client` of a part, drawn evenly: parts are ordered by class."""
    limit = settings.examples_per_client
    if limit is not None and len(part) > limit:
        part = generator.choice(part, limit, replace=False)
    return np.sort(part)


def count_examples(source: str, clients: Sequence[str], settings: DataSettings, targets: int = 0) -> dict[str, int]:
    """How many examples each client has in the cut that `write_parts` writes."""
    data = open_raw(source, split="train", numbers=targets)
    parts = split_indices(labels_of(data), clients, settings, data.clients)
    return {client: len(indices) for client, indices in parts.items()}


def write_parts(
    source: str, folder: Path, clients: list[str], settings: DataSettings, targets: int = 0
) -> dict[str, Path]:
    """Write each client's part as npz below `folder` (kept where it is there already); returns them by client."""
    paths = {client: folder / f"{client}.npz" for client in clients}
    if all(path.is_file() for path in paths.values()):
        return paths
    data = open_raw(source, split="train", numbers=targets)
    labels = labels_of(data)
    for client, indices in split_indices(labels, clients, settings, data.clients).items():
        write = write_arrays if isinstance(data, ArraySource) else write_npz
        write(paths[client], _examples(data, indices), labels[indices])
    return paths


def read_examples(source: str, split: Split, targets: int = 0) -> tuple[NDArray[Any], Labels]:
    """All inputs of a split, uint8 pixels or the inputs themselves, and their labels."""
    data = open_raw(source, split=split, numbers=targets)
    labels = labels_of(data)
    return _examples(data, range(len(labels))), labels


def labels_of(data: Pixels | ArraySource) -> Labels:
    """[n], or [n, several] where an example has several labels or numbers."""
    labels = np.asarray(data.labels)
    several = data.targets if isinstance(data, ArraySource) else 0
    return labels.reshape(-1, several) if several else labels


def _examples(data: Pixels | ArraySource, indices: Sequence[int] | Indices) -> NDArray[Any]:
    if isinstance(data, ArraySource):
        inputs = np.empty((len(indices), *data.input_shape), data.input_dtype)
        data.fetch(indices, inputs)
        return inputs
    images = np.empty((len(indices), *data.shape), np.uint8)
    for position, index in enumerate(indices):
        data.read(int(index), images[position])
    return images
