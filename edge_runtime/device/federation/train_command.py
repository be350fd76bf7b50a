"""From a training order to the command line of `profl-edge train`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec

from device_profiles.contract import MANIFEST_NAME
from device_profiles.errors import FormatError
from device_profiles.federation import TrainOrder
from device_profiles.model import Partition
from device_profiles.profile import DeviceProfile
from device_profiles.work import Distill, Grow, Growing, block_of, parse_work

_CHECKPOINT_SECONDS = 20.0
_MOST_BETWEEN = 200
_USUAL_BETWEEN = 25


class _Cut(msgspec.Struct):
    """What is needed of a manifest; the rest is checked by the command, and not read into the client's memory."""

    partition: Partition


def train_command(
    order: TrainOrder, *, task: Path, prefix: Path, data: str, threads: int, profile: DeviceProfile | None, output: Path
) -> list[str]:
    """The command, which continues from a checkpoint of `output` if there is one.

    `task` holds the folders of the order's files; below `prefix`, the outputs of frozen blocks are kept. Raises
    FormatError for work that a bundle has no program for.
    """
    bundle = task / "bundle"
    work = parse_work(order.work)
    cached = order.cache_prefix is not None and order.prefix is not None and isinstance(work, (Grow, Distill))
    command = [sys.executable, "-P", "-m", "edge_runtime.device", "train", str(bundle)]
    if isinstance(work, Growing) and not cached:
        command += ["--work", work.name]
        command += ["--variant", order.variant] if order.variant != "default" else []
    elif isinstance(work, (Grow, Distill)):
        command += ["--block", str(block_of(work, _partition(bundle))), "--purpose", work.kind]
    else:
        raise FormatError(f"the server's order: work: no device trains {order.work}")
    for name in order.weights:
        command += ["--weights", str(task / name)]
    command += ["--data", data, "--base-version", order.base_version, "-o", str(output)]
    if order.steps is not None:
        command += ["--steps", str(order.steps)]
    else:
        command += ["--epochs", str(order.epochs or 1)]
    command += ["--lr", repr(order.learning_rate), "--seed", str(order.seed)]
    command += ["--max-seconds", repr(order.max_seconds)] if order.max_seconds else []
    command += ["--proximal-mu", repr(order.proximal)] if order.proximal else []
    command += ["--augment", order.augment] if order.augment is not None else []
    if cached and order.cache_prefix is not None and order.prefix is not None:
        folder = prefix / order.prefix
        _remove_others(folder)
        command += ["--cache-prefix", "--cache-prefix-dtype", order.cache_prefix, "--cache-dir", str(folder)]
    between = steps_between(order.work, profile)
    return [*command, "--threads", str(threads), "--checkpoint-every", str(between), "--resume", "--json"]


def steps_between(work: str, profile: DeviceProfile | None) -> int:
    """Steps between two checkpoints: about 20 seconds of them, where the profile says how long one takes."""
    costs = () if profile is None else profile.costs
    seconds = next((cost.step_seconds_median for cost in costs if cost.work.name == work), None)
    return _USUAL_BETWEEN if not seconds else max(1, min(_MOST_BETWEEN, round(_CHECKPOINT_SECONDS / seconds)))


def usual_seconds(order: TrainOrder, profile: DeviceProfile | None, *, examples: int) -> float | None:
    """What the steps of the order take, where the profile says how long one takes."""
    costs = () if profile is None else profile.costs
    cost = next((cost for cost in costs if cost.work.name == order.work and cost.step_seconds_median), None)
    if cost is None or cost.step_seconds_median is None:
        return None
    if order.steps is None and not cost.batch:
        return None
    steps = order.steps or int((order.epochs or 1) * (examples // (cost.batch or 1)))
    seconds = steps * cost.step_seconds_median
    return min(seconds, order.max_seconds) if order.max_seconds else seconds


def _partition(bundle: Path) -> Partition:
    path = bundle / MANIFEST_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Cut).partition
    except (OSError, msgspec.DecodeError) as error:
        raise FormatError(f"{path}: {error}") from None


def _remove_others(folder: Path) -> None:
    """What other frozen blocks put out is of no use any more, and large."""
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
