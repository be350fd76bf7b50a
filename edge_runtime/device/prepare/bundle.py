"""A bundle on disk: its manifest, and the files it vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_profiles.contract import (
    CACHED_PREFIX_VARIANT,
    COSTS_NAME,
    INITIAL_WEIGHTS_NAME,
    MANIFEST_NAME,
    PROGRAMS_FOLDER,
    TIMELINES_NAME,
    WEIGHTS_FOLDER,
)
from device_profiles.errors import DigestError, FormatError, UsageError
from device_profiles.files import read_json, sha256_of
from device_profiles.manifest import FileEntry, Manifest, Program
from device_profiles.settings import Setting
from device_profiles.trades import TRADES, Trade, with_trade
from device_profiles.work import BlockKind, Distill, Growing, joint, label


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A folder whose manifest was read and whose files have the sizes it states.

    Attributes:
        digest: SHA-256 of `manifest.json`, which stands for the whole bundle.
    """

    path: Path
    manifest: Manifest
    digest: str

    def program_for(self, kind: BlockKind, block: int, *, cached_prefix: bool = False) -> Program:
        """The program of `kind` for `block` (1-based); raises UsageError with the blocks there are.

        `cached_prefix` chooses the training step that reads the prefix's outputs instead of images.
        """
        for program in self.manifest.programs:
            cached = program.variant == CACHED_PREFIX_VARIANT
            if program.work.kind == kind and program.block == block and cached == cached_prefix:
                return program
        if kind == "distill" and block == 1:
            raise UsageError(
                (
                    Setting("purpose", "distill"),
                    " cannot be combined with ",
                    Setting("block", 1),
                    ": no block before it is ever trained, so that nothing stands in for it",
                ),
                remedy=("give ", Setting("block", 2), " or a later one"),
            )
        blocks = sorted({p.block for p in self.manifest.programs if p.work.kind == kind})
        works = [p.work.name for p in self.manifest.programs if p.work.trains]
        known = ", ".join(map(str, blocks)) if blocks or not works else ", ".join(works)
        raise UsageError(
            f"{self.path}: no '{kind}' program for block {block}",
            remedy=("give ", Setting("block" if blocks or not works else "work"), f" one of: {known or 'none'}"),
        )

    def training_program(self, work: Growing, variant: Trade = "default") -> Program:
        """The program that trains `work` in a variant; raises UsageError with those that there are."""
        programs = [
            p for p in self.manifest.programs if isinstance(p.work, Growing) and p.variant != CACHED_PREFIX_VARIANT
        ]
        name = with_trade(label(work, self.manifest.partition), variant) if self._ends_block(work) else ""
        for program in programs:
            if program.name == name:
                return program
        there = [trade for trade in TRADES for p in programs if p.work == work and p.name.endswith(f"-{trade}")]
        if variant == "default" and there:
            raise UsageError(
                f"{self.path} has no such program of {work.name} but in variants",
                remedy=("give ", Setting("variant", " or ".join(there))),
            )
        if variant != "default" and any(program.work == work for program in programs):
            raise UsageError(
                f"{self.path} has no such program of {work.name}",
                field="variant",
                value=variant,
                remedy=f"it has {', '.join(there)}; give one of these" if there else "leave it out",
            )
        known = ", ".join(dict.fromkeys(program.work.name for program in programs)) or "none"
        raise UsageError(
            f"{self.path} has no such program",
            field="work",
            value=work.name,
            remedy=(f"it has {known}; give one of these, or export the bundle with ", Setting("work", work.name)),
        )

    def _ends_block(self, work: Growing) -> bool:
        return any(block.last_unit == work.last_unit for block in self.manifest.partition.blocks)

    def joint_program(self, first_block: int, block: int) -> Program:
        """The program that trains blocks `first_block` to `block` together; raises UsageError without it."""
        if first_block >= block:
            raise UsageError(
                ("must lie before ", Setting("block", block)),
                field="first_block",
                value=first_block,
                remedy="give an earlier block, or leave it out",
            )
        if block > len(self.manifest.partition.blocks):
            return self.program_for("grow", block)  # which says what blocks there are
        asked = joint(self.manifest.partition, first_block, block)
        for program in self.manifest.programs:
            if program.work == asked:
                return program
        raise UsageError(
            f"{self.path} has no program for blocks {first_block} to {block} together",
            field="first_block",
            value=first_block,
            remedy=("export the bundle with ", Setting("joint")),
        )

    def labels_are_targets(self, program: Program) -> bool:
        """Whether the model of `program` is trained towards numbers (the mean squared error) instead of labels."""
        # A distillation has a loss of its own and takes no labels: the data are those of its block's evaluation.
        if isinstance(program.work, Distill):
            program = self.program_for("eval", program.block)
        return program.loss.name == "mse"

    def label_type(self, program: Program) -> tuple[int | None, bool]:
        """How many values an example of `program` is compared with, None for one label; and whether these are numbers
        rather than labels."""
        model = self.manifest.model
        numbers = self.labels_are_targets(program)
        return model.classes if numbers else model.positions, numbers

    def program_path(self, program: Program) -> Path:
        """The program's `.pte`, after its digest was checked; raises DigestError."""
        return self._verified(f"{PROGRAMS_FOLDER}/{program.name}.pte")

    def weights_path(self, name: str = INITIAL_WEIGHTS_NAME) -> Path:
        """A weights file, after its digest was checked; raises DigestError, or FormatError if there is none."""
        return self._verified(f"{WEIGHTS_FOLDER}/{name}.safetensors")

    def timelines_path(self) -> Path | None:
        """The file of the programs' timelines, after its digest was checked; None in a bundle that has none."""
        return self._verified_if_there(TIMELINES_NAME)

    def costs_path(self) -> Path | None:
        """The file of what every run of units costs, after its digest was checked; None where none was asked for."""
        return self._verified_if_there(COSTS_NAME)

    def _verified_if_there(self, relative: str) -> Path | None:
        return self._verified(relative) if any(f.path == relative for f in self.manifest.files) else None

    def _verified(self, relative: str) -> Path:
        entry = next((f for f in self.manifest.files if f.path == relative), None)
        if entry is None:
            raise FormatError(f"{self.path / MANIFEST_NAME}: files: {relative} is missing")
        path = self.path / relative
        try:
            actual = sha256_of(path)
        except OSError as error:
            raise FormatError(f"{path}: {error.strerror or error}") from None
        if actual != entry.sha256:
            raise DigestError(f"{path}: its SHA-256 is not the manifest's; export or copy the bundle again")
        return path


def open_bundle(path: Path) -> Bundle:
    """Read the manifest of `path` and compare every file's size with it.

    A file's SHA-256 is compared when the file is used. Raises FormatError where the manifest is wrong or a file is
    missing, DigestError where a size differs.
    """
    if not path.is_dir():
        raise FormatError(f"{path}: not a bundle folder", remedy=f"'profl-edge export -o {path}' writes one")
    manifest_path = path / MANIFEST_NAME
    manifest = read_json(manifest_path, Manifest)
    for entry in manifest.files:
        _check_size(path / entry.path, entry)
    return Bundle(path=path, manifest=manifest, digest=sha256_of(manifest_path))


def _check_size(path: Path, entry: FileEntry) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    if size != entry.size_bytes:
        raise DigestError(
            f"{path}: {size} bytes, the manifest states {entry.size_bytes}; export or copy the bundle again"
        )
