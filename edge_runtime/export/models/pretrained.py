"""Weights of a file that a model starts from: matched by name, with another number of classes where it has other ones.

Names that the file lacks keep their fresh values, and names that the model lacks are left out; both are reported.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from device_profiles.errors import FormatError

SAFETENSORS = ".safetensors"
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training scripts keep a model beside other things."""
_NAMED = 3
"""Tensors that a report names before it counts the others."""


class Loaded(NamedTuple):
    """Names of the model's tensors that a file has, lacks, and has for other classes; the file's that the model
    lacks, and what stood in front of the file's names."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    replaced: tuple[str, ...]
    unexpected: tuple[str, ...]
    prefix: str

    def lines(self, path: Path) -> list[str]:
        """The report."""
        result = [f"{path}: {len(self.matched)} tensors of the model are in the file"]
        if self.prefix:
            result[0] += f", under names that begin with '{self.prefix}'"
        if self.replaced:
            result.append(f"for another number of classes, kept fresh: {_some(self.replaced)}")
        if self.missing:
            result.append(f"not in the file, kept fresh: {_some(self.missing)}")
        if self.unexpected:
            result.append(f"not in the model, left out: {_some(self.unexpected)}")
        return result


def load_pretrained(module: nn.Module, path: Path, *, classes: int) -> Loaded:
    """Give `module` the tensors of `path` (safetensors, or a file of `torch.save`, read without running any code).

    The classifier, the last module whose tensors have a row for each of `classes`, keeps its own where the file has
    another number of rows. Raises FormatError, naming the file and the tensor, for what is no such file, for another
    shape, and where nothing matches.
    """
    expected = module.state_dict()
    found, prefix = _without_prefix(_read(path), expected)
    classifier = classifier_of(module, classes)
    matched, replaced = {}, []
    for name, own in expected.items():
        given = found.get(name)
        if given is None:
            continue
        if given.shape == own.shape:
            matched[name] = _as(given, own, name, path)
        elif given.shape[1:] == own.shape[1:] and classifier is not None and _module_of(name) == classifier:
            replaced.append(name)
        else:
            raise FormatError(
                f"{path}: tensor '{name}' is {list(given.shape)}, the model's is {list(own.shape)}",
                remedy="give the file of the same architecture and width",
            )
    if not matched:
        raise FormatError(
            f"{path}: has no tensor of the model",
            remedy=f"the file has {_some(found) or 'none'}; the model has {_some(expected)}",
        )
    module.load_state_dict(matched, strict=False)
    missing = tuple(name for name in expected if name not in found)
    unexpected = tuple(name for name in found if name not in expected)
    return Loaded(tuple(matched), missing, tuple(replaced), unexpected, prefix)


def classifier_of(module: nn.Module, classes: int) -> str | None:
    """The name of the last module with a weight that has a row for each class; None without any."""
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(weight := getattr(part, "weight", None), Tensor) and weight.ndim and weight.shape[0] == classes
    ]
    return names[-1] if names else None


def _module_of(name: str) -> str:
    return name.rpartition(".")[0]


def _as(given: Tensor, own: Tensor, name: str, path: Path) -> Tensor:
    if given.is_floating_point() != own.is_floating_point():
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (given, own)]
        raise FormatError(f"{path}: tensor '{name}' is {kinds[0]}, the model's is {kinds[1]}")
    if given.is_floating_point() and not bool(torch.isfinite(given).all()):
        raise FormatError(f"{path}: tensor '{name}' has values that are not finite numbers")
    return given.to(own.dtype)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == SAFETENSORS:
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise FormatError(f"{path}: not a safetensors file: {error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        raise FormatError(
            f"{path}: is not a file of weights alone",
            remedy="write one with torch.save(model.state_dict(), ...), or as .safetensors",
        ) from None
    while isinstance(loaded, Mapping) and not any(isinstance(value, Tensor) for value in loaded.values()):
        inner = [loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if not inner:
            break
        loaded = inner[0]
    if not isinstance(loaded, Mapping):
        raise FormatError(f"{path}: holds a {type(loaded).__name__}, not a state_dict")
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}


def _without_prefix(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The file's tensors, and the prefix (`model.`) that was taken off where none of them matched with it."""
    if any(name in expected for name in found):
        return found, ""
    parts = {name[: -len(own)] for name in found for own in expected if name.endswith(f".{own}")}
    for prefix in sorted(parts, key=len):
        return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}, prefix
    return found, ""


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
