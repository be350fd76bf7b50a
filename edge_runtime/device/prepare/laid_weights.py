"""Weights laid over each other: the bundle's initial ones, then the files of `--weights`, each over those before it.

A tensor is taken from the last file that holds it. Where files were given, what a program reads and does not train
must be in one of them: otherwise it would keep the bundle's initial values without a word, and a block that was never
trained computes nothing of use. `check_whole` is that rule; `version` names the result, however it is spread over
files, which is what an update says that it started from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from device_profiles.contract import CONSTANT_PREFIX, STAND_IN_PREFIX, TRAINED_ROLES
from device_profiles.errors import FormatError, UsageError
from device_profiles.manifest import Manifest, Program
from device_profiles.settings import Setting
from device_profiles.weights_file import check_tensors
from device_profiles.work import Distill, Eval
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.tensors import TensorFile
from edge_runtime.device.prepare.weights_version import weights_version

if TYPE_CHECKING:
    from device_profiles.settings import Said

_BLOCK = "block "
_STAND_IN = "the stand-in of block "
_HEAD = "the classifier head"
_CHECKPOINT = "profl_checkpoint"


class LaidWeights:
    """The bundle's initial weights with files laid over them in order. All files are closed again.

    Attributes:
        files: what was laid over the bundle's weights, in order; may be empty.
        layers: the bundle's initial weights, then each of `files`.

    Raises FormatError or DigestError, with the remedy, for a file that holds anything but tensors of the bundle.
    """

    def __init__(self, bundle: Bundle, files: Sequence[Path] = ()) -> None:
        self.files = tuple(files)
        initial = TensorFile(bundle.weights_path())
        initial.close()
        self.layers = (initial, *(_opened(path, initial) for path in files))
        self._holders = {name: layer for layer in self.layers for name in layer.names()}
        manifest = bundle.manifest
        self._learnt = {t.name for p in manifest.programs for t in p.tensors if t.role in TRAINED_ROLES}
        self._parts = _parts_of(manifest, {*self._holders, *(i.name for p in manifest.programs for i in p.inputs)})

    def names(self) -> list[str]:
        """Names of all tensors: those of the bundle's initial weights."""
        return self.layers[0].names()

    def holder(self, name: str) -> TensorFile:
        """The last layer that holds a tensor; raises FormatError where none does."""
        if name not in self._holders:
            raise FormatError(f"{self.layers[0].path}: tensor '{name}' is missing")
        return self._holders[name]

    def is_initial(self, name: str) -> bool:
        """Whether a tensor is the bundle's own initial one: no file was laid over it."""
        return self.holder(name) is self.layers[0]

    def place(self, name: str, dtype: str, shape: tuple[int, ...]) -> tuple[str, int, int]:
        """Path, offset and size of a tensor's bytes; raises FormatError unless it has this type and shape."""
        holder = self.holder(name)
        holder.check(name, dtype, shape)
        return holder.place(name)

    def version(self) -> str:
        """The version of the laid weights, by their content alone; reads all of them."""
        return weights_version(self.layers)

    def initial_blocks(self, programs: Sequence[Program]) -> list[int]:
        """Blocks (1-based) that `programs` read without training them and that no file holds."""
        parts = {self._parts[name] for name in self._read_only(programs) if self.is_initial(name)}
        return sorted(int(part.removeprefix(_BLOCK)) for part in parts if part.startswith(_BLOCK))

    def check_whole(self, programs: Sequence[Program], *, initial_allowed: bool = False) -> None:
        """Check that `files` hold what `programs`, which do one piece of work together, read.

        What they train may start from the bundle's initial values, whole blocks at a time. What they only read, the
        frozen blocks and the output module of an evaluation or of a teacher, must be in the files unless
        `initial_allowed`. Without files everything is the bundle's, and nothing is checked.

        Raises UsageError naming what is missing, and FormatError for a block that is there in part.
        """
        if not self.files:
            return
        read = self._read_only(programs)
        self._check_parts(read + [t.name for p in programs for t in p.tensors if t.role in TRAINED_ROLES])
        missing = dict.fromkeys(self._parts[name] for name in read if self.is_initial(name))
        if missing and not initial_allowed:
            raise self._missing(programs[-1], list(missing))

    def _read_only(self, programs: Sequence[Program]) -> list[str]:
        """Names that are read and not trained by `programs`; of these, what a training could have changed.

        Other tensors of a trained block, such as the weights of a blur, are the same in every update's bundle and in
        no update.
        """
        learnt_parts = {self._parts[name] for name in self._learnt}
        return [name for name in _read_only(programs) if name in self._learnt or self._parts[name] not in learnt_parts]

    def _check_parts(self, names: Sequence[str]) -> None:
        """Raise FormatError for a block, or the head, of which the files hold some tensors and not others."""
        given = {self._parts[name]: name for name in names if not self.is_initial(name)}
        for name in names:
            part = self._parts[name]
            if part in given and self.is_initial(name):
                raise FormatError(
                    f"{part} is incomplete: '{given[part]}' is in a file, but '{name}' is not",
                    field="weights",
                    value=self.files[-1],
                    remedy="give files that contain all of it",
                )

    def _missing(self, program: Program, missing: list[str]) -> UsageError:
        files: list[Said] = [(Setting("weights", path), " ") for path in self.files[:-1]]
        files.append(Setting("weights", self.files[-1]))
        earlier = isinstance(program.work, Eval) and program.block > 1
        them = "it" if len(missing) == 1 else "them"
        return UsageError(
            (*files, f": {program.name} reads {_listed(missing)}, and no file holds {them}"),
            remedy=(
                "give the updates of earlier steps before these, in order (",
                Setting("weights", "FIRST"),
                " ",
                Setting("weights", "SECOND"),
                ")",
                (", evaluate an earlier block with ", Setting("block")) if earlier else "",
                ", or give ",
                Setting("initial_prefix"),
                " to keep the bundle's initial values",
            ),
        )


def _parts_of(manifest: Manifest, names: Iterable[str]) -> dict[str, str]:
    """What each tensor belongs to, in words; the first block where several share it."""
    owners: dict[str, str] = {}
    for block in manifest.partition.blocks:
        for unit in manifest.model.units[block.first_unit : block.last_unit + 1]:
            for name in unit.tensors:
                owners.setdefault(name, f"{_BLOCK}{block.index}")
    return {name: owners.get(name) or _part_behind(name) for name in names}


def _part_behind(name: str) -> str:
    if not name.startswith(STAND_IN_PREFIX):
        return _HEAD
    return _STAND_IN + name.removeprefix(STAND_IN_PREFIX).partition(".")[0]


def _opened(path: Path, initial: TensorFile) -> TensorFile:
    try:
        return _checked(path, initial)
    except FormatError as error:
        raise error.at("--weights", " ") from None


def _checked(path: Path, initial: TensorFile) -> TensorFile:
    layer = TensorFile(path)
    layer.close()
    if _CHECKPOINT in layer.metadata:
        raise FormatError(
            f"{path}: is the checkpoint of a training",
            remedy=("finish that training with ", Setting("resume"), ", and use its output"),
        )
    check_tensors(path, _described(layer), _described(initial))
    return layer


def _described(file: TensorFile) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (file.dtype(name), file.shape(name)) for name in file.names()}


def _read_only(programs: Sequence[Program]) -> list[str]:
    """Names of tensors that are read and not trained, in order; constants are never of a file."""
    names: dict[str, None] = {}
    for program in programs:
        # A proximal term reads what is trained as it was; a distillation's teacher is a part of what it reads.
        teaches = isinstance(program.work, Distill)
        trained = set() if teaches else {t.name for t in program.tensors if t.role in TRAINED_ROLES}
        names |= {
            i.name: None
            for i in program.inputs
            if i.role == "frozen" and i.name not in trained and not i.name.startswith(CONSTANT_PREFIX)
        }
    return list(names)


def _listed(parts: Iterable[str]) -> str:
    """`blocks 1 and 3 and the classifier head`."""
    words = list(parts)
    said = []
    for prefix, plural in ((_BLOCK, "blocks "), (_STAND_IN, "the stand-ins of blocks ")):
        numbers = [word.removeprefix(prefix) for word in words if word.startswith(prefix)]
        said += [(plural if len(numbers) > 1 else prefix) + _joined(numbers)] if numbers else []
    return _joined([*said, *([_HEAD] if _HEAD in words else [])])


def _joined(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
