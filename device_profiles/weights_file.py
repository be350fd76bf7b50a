"""What a file of weights must be, and the way out where it is something else; for every reader of weights."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from device_profiles.contract import STAND_IN_PREFIX
from device_profiles.errors import FormatError

HEAD_BYTES = 512
"""How much of a file `check_is_no_other` looks at."""
_HEADER_START = 8
"""Of safetensors, a JSON object."""
_PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ZIP = b"PK\x03\x04"
_OTHER_FLOATS = {
    "F64": "float64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8",
    "F8_E5M2": "float8",
    "float8_e4m3fn": "float8",
    "float8_e5m2": "float8",
    "float64": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
}
"""Types that weights are often kept in, by the names of safetensors and of numpy; the runtime computes in float32."""

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Element type (numpy's name) and shape of each tensor."""


def check_is_no_other(path: Path, head: bytes) -> None:
    """Raise FormatError, with the line that converts it, where `head` begins a file of torch.save or of numpy."""
    if head[_HEADER_START : _HEADER_START + 1] == b"{":  # its length may look like a pickle's first bytes
        return
    if head.startswith(_ZIP) and b".npy" in head:
        raise FormatError(f"{path}: is a NumPy archive, not safetensors; convert it with: {_from_numpy(path)}")
    if head.startswith(_ZIP) or head.startswith(_PICKLE_PROTOCOLS):
        raise FormatError(
            f"{path}: is a file of torch.save (a pickle), not safetensors; convert it with: {_from_torch(path)}"
        )


def check_type(path: Path, name: str, dtype: str) -> None:
    """Raise FormatError, with the line that converts the file, for a tensor of another floating type than float32."""
    other = _OTHER_FLOATS.get(dtype)
    if other is not None:
        raise FormatError(f"{path}: tensor '{name}' is {other}; weights are float32: {_to_float32(path)}")


def check_tensors(path: Path, found: Tensors, expected: Tensors) -> None:
    """Hold the tensors `found` in a file against those that the model has; the file may lack some.

    Raises FormatError, naming the tensor and the remedy, where the file holds none of them, a name that the model does
    not know, or a tensor of another type or shape.
    """
    unknown = [name for name in found if name not in expected]
    if unknown:
        raise FormatError(f"{path}: {_about_names(path, unknown, found, expected)}")
    if not found:
        raise FormatError(f"{path}: contains no tensors; give weights of this model")
    for name, (dtype, shape) in found.items():
        wanted, extents = expected[name]
        if dtype != wanted and wanted == "float32":
            check_type(path, name, dtype)
        if dtype != wanted or shape != extents:
            raise FormatError(
                f"{path}: tensor '{name}' is {dtype} {list(shape)}, expected {wanted} {list(extents)}; give weights of "
                "this model, or remove the tensor from the file"
            )


def _about_names(path: Path, unknown: list[str], found: Iterable[str], expected: Iterable[str]) -> str:
    """What is wrong with the names, and what to do."""
    names, wanted = list(found), set(expected)
    foreign = _common_prefix(names, wanted)
    if foreign is not None:
        return f"its names begin with '{foreign}', the model's do not; remove it with: {_without(path, foreign)}"
    missing = _common_prefix(sorted(wanted), set(names), cover=False)
    if missing is not None:
        return f"its names lack the '{missing}' that the model's begin with; add it with: {_with(path, missing)}"
    if len(unknown) == len(names):
        first = min(wanted, default="")
        return f"contains no tensor of the model (it has '{names[0]}', the model '{first}'); give weights of this model"
    if unknown[0].startswith(STAND_IN_PREFIX):
        return (
            f"tensor '{unknown[0]}' is of a bundle with other blocks; export with the same blocks, or give a run's "
            "model.safetensors, which has no output modules"
        )
    return f"tensor '{unknown[0]}' is not a tensor of the model; give weights of this model, or remove it from the file"


def _common_prefix(names: list[str], wanted: set[str], *, cover: bool = True) -> str | None:
    """A prefix, up to a point, without which `names` are among `wanted`: all of those not there already, or some."""
    strange = [name for name in names if name not in wanted]
    for end in [position + 1 for position, letter in enumerate(strange[0]) if letter == "."] if strange else []:
        prefix = strange[0][:end]
        stripped = [name.startswith(prefix) and name[end:] in wanted for name in strange]
        if all(stripped) if cover else wanted <= {name.removeprefix(prefix) for name in names}:
            return prefix
    return None


def _python(code: str) -> str:
    return f"python -c {shlex.quote(code)}"


def _beside(path: Path, ending: str) -> str:
    return json.dumps(str(path.with_name(path.stem + ending)), ensure_ascii=False)


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def _from_torch(path: Path) -> str:
    return _python(
        "import torch, safetensors.torch as s; "
        f'w = torch.load({_quoted(path)}, map_location="cpu", weights_only=True); '
        'w = w.get("state_dict", w); '
        "s.save_file({n: (t.float() if t.is_floating_point() else t).contiguous().clone() for n, t in w.items()}, "
        f"{_beside(path, '.safetensors')})"
    )


def _from_numpy(path: Path) -> str:
    return _python(
        f"import numpy, safetensors.numpy as s; s.save_file(dict(numpy.load({_quoted(path)})), "
        f"{_beside(path, '.safetensors')})"
    )


def _to_float32(path: Path) -> str:
    return "convert them with: " + _python(
        "import safetensors.torch as s; s.save_file({n: t.float() if t.is_floating_point() else t "
        f"for n, t in s.load_file({_quoted(path)}).items()}}, {_beside(path, '-float32.safetensors')})"
    )


def _without(path: Path, prefix: str) -> str:
    return _renamed(path, f"n.removeprefix({json.dumps(prefix)})")


def _with(path: Path, prefix: str) -> str:
    return _renamed(path, f"{json.dumps(prefix)} + n")


def _renamed(path: Path, name: str) -> str:
    return _python(
        f"import safetensors.torch as s; s.save_file({{{name}: t for n, t in s.load_file({_quoted(path)}).items()}}, "
        f"{_beside(path, '-renamed.safetensors')})"
    )
