"""What one `train` command asks for, and which of its options go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_profiles.contract import Augmentation
from device_profiles.errors import UsageError
from device_profiles.manifest import Program
from device_profiles.settings import Setting
from device_profiles.trades import Trade
from device_profiles.work import Growing, TrainingKind
from edge_runtime.device.worker.job import CacheDType


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRequest:
    """One `train` command. `steps` wins over `epochs`; without both, one epoch.

    Either `work`, with its `variant` or the default one, or `block` is given; with the latter, `first_block` trains
    blocks from that one to `block` together, and `purpose` says what is done with the block, by default that it grows.

    What `augment` does follows from `augment_seed` (by default `seed`) and from the epoch, counted from `augment_epoch`
    on. `cached_augmentations`: versions of every example in a cache of the prefix, without which there is none of
    augmented images. `max_seconds` ends the training early, with an update.

    `weights` are laid over the bundle's initial ones in order, and `initial_prefix` says that frozen blocks may be the
    initial ones all the same. By default `base_version` is the version of the weights that result.
    """

    bundle: Path
    data: str
    block: int | None = None
    work: Growing | None = None
    variant: Trade | None = None
    purpose: TrainingKind | None = None
    first_block: int | None = None
    steps: int | None = None
    epochs: float | None = None
    max_seconds: float | None = None
    learning_rate: float | None = None
    proximal_mu: float | None = None
    augment: Augmentation | None = None
    augment_seed: int | None = None
    augment_epoch: int | None = None
    cached_augmentations: int | None = None
    seed: int = 0
    weights: tuple[Path, ...] = ()
    initial_prefix: bool = False
    output: Path | None = None
    base_version: str | None = None
    limit_bytes: int | None = None
    threads: int = 1
    checkpoint_every: int = 100
    resume: bool = False
    cache_prefix: CacheDType | None = None
    cache_folder: Path | None = None


def check_options(request: TrainRequest, program: Program) -> None:
    """Raise UsageError for options that the program or another option does not go with."""
    if request.proximal_mu is not None and not (program.optimizer is not None and program.optimizer.proximal):
        raise UsageError(
            f"{program.name} of {request.bundle} has no proximal term",
            field="proximal_mu",
            remedy=("export the bundle with ", Setting("proximal")),
        )
    for given, key in ((request.augment_seed, "augment_seed"), (request.augment_epoch, "augment_epoch")):
        if given is not None and request.augment is None:
            raise UsageError((Setting(key), " requires ", Setting("augment")), remedy="give both, or leave it out")
    cached = request.cached_augmentations
    if cached is not None and (request.augment is None or request.cache_prefix is None):
        raise UsageError(
            (Setting("cached_augmentations"), " requires ", Setting("augment"), " and ", Setting("cache_prefix")),
            remedy="give all three, or leave it out",
        )
    if request.augment is not None and request.cache_prefix is not None and cached is None:
        raise UsageError(
            (
                Setting("augment"),
                " cannot be combined with ",
                Setting("cache_prefix"),
                ": images that differ in every epoch have no features to keep",
            ),
            remedy=(
                "give ",
                Setting("cached_augmentations", "N"),
                " for N versions of every image, or leave one of the two out",
            ),
        )
