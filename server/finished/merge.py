"""Average updates that were trained by hand: one round without a fleet, judged and averaged as rounds are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import ExecutionError, FormatError, ProflError, UsageError
from device_profiles.files import atomic_file, named, sha256_of
from device_profiles.manifest import Manifest
from device_profiles.work import Distill, Growing, Head, Joint, Work
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.tensors import TensorFile
from edge_runtime.device.prepare.weights_version import weights_version
from server.averaging.aggregation import ReceivedUpdate, average
from server.averaging.weights_files import save_narrow
from server.finished.weight_layers import WholeWeights
from server.fleet.structure import Structure
from server.judging.judging import Asked, judge
from server.judging.strangers import read_update
from server.rounds.run_state import Weights


class MergedUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """One update of an average: its part of it, and the root mean square of its parameters' move."""

    update: str
    program: str
    examples: int
    weight: float
    move: float


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """What was averaged and what was not, with the reason; `base_version` is what updates had to start from."""

    base_version: str
    updates: tuple[MergedUpdate, ...]
    rejected: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Received:
    """Updates that could be read, what each was asked for, and why the others could not be."""

    updates: list[ReceivedUpdate]
    asked: dict[str, Asked]
    rejected: dict[str, str]


def merge_updates(
    bundle: Bundle, paths: Sequence[Path], base: WholeWeights, *, base_version: str, steps: int | None
) -> tuple[Merge, Weights]:
    """Judge and average updates that started from `base`; the whole weights, with what nobody trained as in `base`.

    `steps`: how many every client was asked for, so that one that stopped early counts by what it did.

    Raises UsageError where the updates are of works that no round has together, ExecutionError where none is sound.
    """
    structure = Structure.of(bundle.manifest)
    received = _read(bundle.manifest, paths, steps)
    received.rejected.update(_without_version(received, base_version))
    readable = [update for update in received.updates if update.client not in received.rejected]
    described: list[MergedUpdate] = []
    rejected = dict(received.rejected)
    merged: Weights = dict(base.tensors)
    for group in _rounds(readable, received.asked, structure):
        asked = {update.client: received.asked[update.client] for update in group}
        sound, odd = judge(group, asked, structure, base_version, base.tensors)
        rejected |= odd
        # As in a round of method elastic: who trained fewer units together held the others frozen.
        frozen = any(isinstance(a.work, (Joint, Head)) for a in asked.values())
        merged |= average(sound, base.tensors, counts_frozen=frozen)
        weights = sum(update.weight for update in sound)
        described += [
            MergedUpdate(
                update=update.client,
                program=update.metadata.program,
                examples=update.metadata.examples,
                weight=update.weight / weights,
                move=_move(update, structure, asked[update.client].work, base.tensors),
            )
            for update in sound
        ]
    return Merge(base_version=base_version, updates=tuple(described), rejected=rejected), merged


def write_merged(weights: Mapping[str, NDArray[Any]], path: Path, merge: Merge, manifest: Manifest) -> str:
    """Write merged weights of the manifest's types, whole or not at all; returns their version, as the header says."""
    narrow = {spec.name for spec in manifest.model.tensors if spec.dtype == "bfloat16"}
    made: dict[str, Any] = {"base_version": merge.base_version, "updates": len(merge.updates)}
    with named(path), atomic_file(path) as temporary:
        save_narrow(weights, narrow, temporary)
        with closing(TensorFile(temporary)) as written:
            made["version"] = weights_version([written])
        save_narrow(weights, narrow, temporary, {"weights": msgspec.json.encode(made).decode()})
    return str(made["version"])


def _read(manifest: Manifest, paths: Sequence[Path], steps: int | None) -> _Received:
    """Every file as the update of a client that is called by its path; none counts twice."""
    programs = {program.name: program for program in manifest.programs if program.work.trains}
    received = _Received(updates=[], asked={}, rejected={})
    seen: dict[str, str] = {}
    for path in paths:
        client = str(path)
        if client in seen.values():
            received.rejected[f"{client} (given again)"] = "is the same update"
            continue
        try:
            update = read_update(client, path)
            digest = sha256_of(path)
        except (FormatError, OSError, TypeError, ValueError) as error:
            received.rejected[client] = error.reason if isinstance(error, ProflError) else str(error)
            continue
        program = programs.get(update.metadata.program)
        if digest in seen:
            received.rejected[client] = f"is the same update as {seen[digest]}"
        elif program is None or not isinstance(program.work, Growing | Distill):
            received.rejected[client] = (
                f"trained {update.metadata.program}, which is not a training program of the bundle"
            )
        else:
            received.updates.append(update)
            received.asked[client] = Asked(work=program.work, batch=program.batch, examples=None, steps=steps)
        seen.setdefault(digest, client)
    return received


def _without_version(received: _Received, version: str) -> Iterator[tuple[str, str]]:
    """Updates that do not say what they started from, where it is asked for."""
    for update in received.updates:
        if version and not update.metadata.base_version:
            yield (
                update.client,
                "does not say which weights it started from, as updates of older releases; train it again, with "
                f"--base-version {version} where it starts from the same ones, or take it as it is with "
                "--base-version ''",
            )


def _rounds(
    updates: Sequence[ReceivedUpdate], asked: Mapping[str, Asked], structure: Structure
) -> Iterator[list[ReceivedUpdate]]:
    """Updates that one round would have together; raises UsageError where two groups of them train the same tensor."""
    groups: dict[tuple[bool, int], list[ReceivedUpdate]] = {}
    for update in updates:
        work = asked[update.client].work
        groups.setdefault((isinstance(work, Distill), structure.block(work)), []).append(update)
    owners: dict[str, ReceivedUpdate] = {}
    for group in groups.values():
        own = {name for update in group for name in structure.tensors(asked[update.client].work)}
        shared = sorted(own & owners.keys())
        if shared:
            first = owners[shared[0]]
            raise UsageError(
                f"{first.client} trained {first.metadata.program} and {group[0].client} {group[0].metadata.program}, "
                f"both with tensor '{shared[0]}', and cannot be merged together; merge one kind, train the other "
                "from the result ('profl-edge train --weights'), then merge it with --weights"
            )
        owners |= dict.fromkeys(own, group[0])
    yield from groups.values()


def _move(update: ReceivedUpdate, structure: Structure, work: Work, base: Mapping[str, NDArray[Any]]) -> float:
    names = [name for name, tensor in structure.tensors(work).items() if tensor.role == "parameter"]
    moved = [(update.tensors[name].astype(np.float64) - base[name]).ravel() for name in names]
    return float(np.sqrt(np.mean(np.concatenate(moved) ** 2)))


def refuse_rejected(merge: Merge, *, skip: bool) -> None:
    """Raise ExecutionError where an update was rejected, unless `skip`, and where none is left."""
    if not merge.updates:
        raise ExecutionError(f"no update remains to merge: {_first(merge)}" if merge.rejected else "no update to merge")
    if merge.rejected and not skip:
        count = len(merge.rejected) + len(merge.updates)
        raise ExecutionError(
            f"{len(merge.rejected)} of {count} updates are rejected ({_first(merge)}); "
            "remove them from the command, or skip them with --skip-rejected"
        )


def _first(merge: Merge) -> str:
    client, reason = next(iter(merge.rejected.items()))
    return f"{client}: {reason}"
