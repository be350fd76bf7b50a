"""Files of weights that other programs wrote: what does not match is refused with the line of Python that mends it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from device_profiles.contract import CONSTANT_PREFIX, STAND_IN_PREFIX
from device_profiles.errors import FormatError

_NAMED = 3
"""Tensors that an error names before it counts the others."""
_PICKLES = (b"PK\x03\x04", b"\x80")
"""How files of `torch.save` begin: a zip archive, or a pickle in old ones."""
_OF_RUNS = (STAND_IN_PREFIX, CONSTANT_PREFIX, "depth_classifier.")
"""Tensors beside the model's that weights of rounds and bundles have."""


def refuse_pickle(path: Path) -> None:
    """Raise FormatError for a checkpoint of `torch.save`, with the line that makes safetensors of it."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    if start.startswith(_PICKLES):
        raise FormatError(f"{path}: is a PyTorch checkpoint, not safetensors; convert it: {from_pickle(path)}")


def check_names(path: Path, found: Collection[str], known: Collection[str], *, needed: Collection[str] = ()) -> None:
    """Raise FormatError for names in a file that the model does not have, and for `needed` ones that are missing.

    Where the file's names differ from the model's by a prefix alone, the error has the line that renames them.
    """
    foreign = [name for name in found if name not in known and not name.startswith(_OF_RUNS)]
    missing = [name for name in needed if name not in found]
    if foreign:
        line = _renaming(path, foreign, missing or known)
        remedy = f"rename them: {line}" if line else "the weights are of another model, or hold more than a model's"
        raise FormatError(f"{path}: {_listed(foreign)}: not in the model, which has '{_first(known)}'; {remedy}")
    if missing:
        raise FormatError(
            f"{path}: tensor {_listed(missing)} is missing; give a whole model, such as a run's model.safetensors or "
            "what 'profl-server merge' writes"
        )


def from_pickle(path: Path) -> str:
    """A shell line that makes safetensors of a checkpoint."""
    return _python(
        "import torch; from safetensors.torch import save_file; "
        f"d = torch.load({str(path)!r}, map_location='cpu'); d = d.get('state_dict', d); "
        f"save_file({{k: v.clone().contiguous() for k, v in d.items()}}, {_beside(path, '')!r})"
    )


def to_float32(path: Path) -> str:
    """A shell line that makes float32 of every floating tensor of a safetensors file."""
    return _from_safetensors(path, "k: v.float() if v.is_floating_point() else v", "-float32")


def _renaming(path: Path, foreign: list[str], wanted: Collection[str]) -> str | None:
    """The line that takes a prefix off the names of the file, or adds one; None where that does not make them match."""
    names = set(wanted)
    off = next((foreign[0].removesuffix(name) for name in names if foreign[0].endswith(f".{name}")), "")
    if off and all(name.removeprefix(off) in names for name in foreign):
        return _from_safetensors(path, f"k.removeprefix({off!r}): v", "-renamed")
    on = next((name.removesuffix(foreign[0]) for name in names if name.endswith(f".{foreign[0]}")), "")
    if on and all(on + name in names for name in foreign):
        return _from_safetensors(path, f"{on!r} + k: v", "-renamed")
    return None


def _from_safetensors(path: Path, entry: str, ending: str) -> str:
    return _python(
        "from safetensors.torch import load_file, save_file; "
        f"save_file({{{entry} for k, v in load_file({str(path)!r}).items()}}, {_beside(path, ending)!r})"
    )


def _python(code: str) -> str:
    return f'python -c "{code}"'


def _beside(path: Path, ending: str) -> str:
    return str(path.with_name(f"{path.stem}{ending}.safetensors"))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more


def _first(names: Collection[str]) -> str:
    return next(iter(names), "")
