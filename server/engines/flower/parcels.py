"""What a device needs for a piece of work: a bundle of the programs that it takes, and the weights that it reads.

Weights travel as one file for each unit. A unit that did not change since the round before, and one that several pieces
read, is the same bytes: Flower stores them once, and a device fetches what it lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from flwr.app import Array, ArrayRecord
from safetensors import safe_open
from safetensors.numpy import save

from device_profiles.contract import (
    CACHED_PREFIX_VARIANT,
    INITIAL_WEIGHTS_NAME,
    MANIFEST_NAME,
    PROGRAMS_FOLDER,
    STAND_IN_PREFIX,
    TRAINED_ROLES,
    WEIGHTS_FOLDER,
)
from device_profiles.federation import BUNDLE_FOLDER, SentFile
from device_profiles.federation import WEIGHTS_FOLDER as LAID_FOLDER
from device_profiles.files import to_json
from device_profiles.manifest import FileEntry, Manifest, Program
from device_profiles.work import Distill, Work, of_block
from edge_runtime.device.prepare.bundle import Bundle
from server.engines.flower.mail import file_array

_INITIAL = f"{WEIGHTS_FOLDER}/{INITIAL_WEIGHTS_NAME}.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """Files of an order, by name.

    Attributes:
        weights: names among `files` that are laid over the bundle's weights; none where these are what is asked for.
        record: the files as Flower carries them.
    """

    files: Mapping[str, SentFile]
    weights: tuple[str, ...]
    record: ArrayRecord

    @property
    def bytes(self) -> int:
        """Of all files, of which a device has some already."""
        return sum(file.bytes for file in self.files.values())


@dataclass(frozen=True, slots=True)
class _File:
    sent: SentFile
    array: Array

    @classmethod
    def of(cls, content: bytes) -> _File:
        digest = hashlib.sha256(content).hexdigest()
        return cls(SentFile(bytes=len(content), sha256=digest), file_array(content))


class Parcels:
    """Makes the parcels of one bundle; what several of them hold is in memory once."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._owners = _owners(bundle.manifest)
        self._initial = bundle.weights_path()
        with safe_open(self._initial, framework="numpy") as file:
            self._names = frozenset(file.keys())
        self._bundles: dict[tuple[str, ...], dict[str, _File]] = {}
        self._first: dict[str, str] = {}
        """Digests of the units as the bundle has them."""
        self._weights: Path | None = None
        self._units: dict[str, _File] = {}
        self._parcels: dict[str, Parcel] = {}

    def of(self, work: Work, weights: Path) -> Parcel:
        """For a task that does `work` from `weights`, a file of the run."""
        if weights != self._weights:
            # A unit that stays as it was keeps its array, and with it the digests of its pieces.
            self._weights, self._parcels = weights, {}
        if work.name not in self._parcels:
            self._parcels[work.name] = self._made(work, weights)
        return self._parcels[work.name]

    def whole(self) -> Parcel:
        """Every training program of the bundle, to be measured."""
        programs = [p for p in self._bundle.manifest.programs if p.work.trains and p.variant != CACHED_PREFIX_VARIANT]
        return _parcel(self._files(self._with_evaluations(programs)), {})

    def _made(self, work: Work, weights: Path) -> Parcel:
        programs = self._with_evaluations(
            [p for p in self._bundle.manifest.programs if p.work == work and p.variant != CACHED_PREFIX_VARIANT]
        )
        read = sorted({self._owners[name] for name in self._read(programs)})
        laid = {unit: self._unit(unit, weights) for unit in read}
        # The bundle's own weights are those of the first round, and need not be sent twice.
        if all(self._initial_digest(unit) == file.sent.sha256 for unit, file in laid.items()):
            laid = {}
        return _parcel(self._files(programs), {f"{LAID_FOLDER}{unit}": file for unit, file in laid.items()})

    def _with_evaluations(self, programs: Sequence[Program]) -> list[Program]:
        """A distillation is given the data of its block's evaluation."""
        partition = self._bundle.manifest.partition
        needed = [of_block("eval", partition, p.block) for p in programs if isinstance(p.work, Distill)]
        return [*programs, *(p for p in self._bundle.manifest.programs if p.work in needed)]

    def _read(self, programs: Iterable[Program]) -> frozenset[str]:
        """Tensors of the weights that programs read or train."""
        frozen = {i.name for p in programs for i in p.inputs if i.role == "frozen"}
        trained = {t.name for p in programs for t in p.tensors if t.role in TRAINED_ROLES}
        return self._names & (frozen | trained)

    def _files(self, programs: Sequence[Program]) -> dict[str, _File]:
        """A bundle of these programs alone, whose weights hold whole units."""
        key = tuple(sorted(program.name for program in programs))
        if key not in self._bundles:
            units = {self._owners[name] for name in self._read(programs)}
            content = {_INITIAL: self._content(self._initial, units)}
            for program in programs:
                content[f"{PROGRAMS_FOLDER}/{program.name}.pte"] = self._bundle.program_path(program).read_bytes()
            files = {name: _File.of(data) for name, data in sorted(content.items())}
            entries = tuple(
                FileEntry(path=name, size_bytes=file.sent.bytes, sha256=file.sent.sha256)
                for name, file in files.items()
            )
            manifest = msgspec.structs.replace(self._bundle.manifest, programs=tuple(programs), files=entries)
            manifest.check(MANIFEST_NAME)
            files[MANIFEST_NAME] = _File.of(to_json(manifest))
            self._bundles[key] = {f"{BUNDLE_FOLDER}{name}": file for name, file in files.items()}
        return self._bundles[key]

    def _unit(self, unit: str, weights: Path) -> _File:
        made = _File.of(self._content(weights, {unit}))
        old = self._units.get(unit)
        if old is None or old.sent != made.sent:
            self._units[unit] = made
        return self._units[unit]

    def _initial_digest(self, unit: str) -> str:
        if unit not in self._first:
            self._first[unit] = hashlib.sha256(self._content(self._initial, {unit})).hexdigest()
        return self._first[unit]

    def _content(self, path: Path, units: set[str]) -> bytes:
        """The tensors of some units as a safetensors file, the same bytes for the same tensors."""
        with safe_open(path, framework="numpy") as file:
            names = sorted(name for name in self._names if self._owners[name] in units)
            return save({name: file.get_tensor(name) for name in names})


def _parcel(bundle: Mapping[str, _File], laid: Mapping[str, _File]) -> Parcel:
    files = {**bundle, **laid}
    record = ArrayRecord()
    for name, file in files.items():
        # One by one: a record that is made of a dictionary copies its arrays.
        record[name] = file.array
    return Parcel(files={name: file.sent for name, file in files.items()}, weights=tuple(laid), record=record)


class _Owners(dict[str, str]):
    """What belongs to no unit and to no stand-in is the classifier head's."""

    def __missing__(self, name: str) -> str:
        if name.startswith(STAND_IN_PREFIX):
            return f"stand-in{name.removeprefix(STAND_IN_PREFIX).partition('.')[0]}"
        return "head"


def _owners(manifest: Manifest) -> _Owners:
    """The unit that each tensor travels with: the first one that has it."""
    owners = _Owners()
    for number, unit in enumerate(manifest.model.units):
        for name in unit.tensors:
            owners.setdefault(name, f"unit{number}")
    return owners
