"""Models by their name, built-in ones and the user's: the one place that turns a name into a module."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from device_profiles.errors import UsageError
from device_profiles.settings import Setting, ValueOf
from edge_runtime.export.models import built_in, create
from edge_runtime.export.models.preparation import UNCHANGED, Preparation

if TYPE_CHECKING:
    from torch import nn

_INPUTS = {
    3: ("images", "channels x height x width"),
    2: ("channels over time", "channels x time"),
    1: ("texts", "the number of tokens"),
}
"""What a built-in model takes, and how its shape is written, by the number of its dimensions."""


def is_own(model: str) -> bool:
    """Whether `model` names a factory of the user's, `package.module:factory`."""
    return ":" in model


def find_models_in(folder: Path) -> None:
    """Look for the modules of own models in `folder` too, behind the working directory."""
    place = str(folder.absolute())
    if place not in sys.path:
        sys.path.append(place)


def create_model(
    model: str,
    *,
    width: int | None,
    classes: int,
    input_shape: tuple[int, ...],
    preparation: Preparation = UNCHANGED,
    note: Callable[[str], None] = lambda line: None,
) -> nn.Module:
    """A built-in model by its name, or what the user's `package.module:factory` makes, prepared; raises UsageError, and
    FormatError for a file of weights. `note` is told what was found in the file.

    The factory's module is looked for as in a script of the working directory, and in the folders of `find_models_in`.
    """
    module = _made(model, width, classes, input_shape)
    preparation.apply(module, classes=classes, input_shape=input_shape, note=note)
    return module


def _made(model: str, width: int | None, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    if is_own(model):
        if width is not None:
            raise UsageError("is for built-in models only", field="width", remedy="leave it out")
        return _made_by(model)
    usual = built_in(model).input_shape
    if len(input_shape) != len(usual):
        takes, form = _INPUTS[len(usual)]
        raise UsageError(
            f"takes {takes}",
            field="model",
            value=model,
            remedy=("write ", Setting("input_shape"), f" as {form}, such as ", ValueOf("input_shape", usual)),
        )
    return create(model, width=width, classes=classes, input_channels=input_shape[0])


def _made_by(model: str) -> nn.Module:
    # Here and not above: built-in models are made where torch is not imported yet.
    from edge_runtime.export.models.checked import check_module

    factory = _factory(model)
    try:
        made = factory()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UsageError(f"the factory raised {_said(error)}", field="model", value=model) from None
    return check_module(made, model)


def _factory(model: str) -> Callable[[], object]:
    name, _, path = model.partition(":")
    if not name or not path:
        raise UsageError("write package.module:factory", field="model", value=model)
    module = _module(model, name)
    try:
        factory: object = attrgetter(path)(module)
    except AttributeError:
        raise UsageError(f"{module.__file__ or name} has no '{path}'", field="model", value=model) from None
    if not callable(factory):
        raise UsageError(
            f"'{path}' is a {type(factory).__name__}",
            field="model",
            value=model,
            remedy="name a function that makes a model",
        )
    needed = _needed_arguments(factory)
    if needed:
        raise UsageError(
            f"the factory needs arguments ({', '.join(needed)})",
            field="model",
            value=model,
            remedy=f"name a function without any, such as: def make(): return {path}(...)",
        )
    return factory


def _module(model: str, name: str) -> ModuleType:
    # Found as a script beside the caller would be, also where the command is an installed program.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"importing {name} raised {_said(error)}", field="model", value=model) from None
        raise UsageError(
            f"there is no module '{error.name}' in {Path.cwd()} or among the installed packages",
            field="model",
            value=model,
            remedy="run the command in the folder that holds it, or set PYTHONPATH",
        ) from None
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UsageError(f"importing {name} raised {_said(error)}", field="model", value=model) from None


def _needed_arguments(factory: Callable[..., object]) -> list[str]:
    """Names of the arguments that a call without any would lack."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # made by an extension module, which does not say
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variable]


def _said(error: BaseException) -> str:
    """Its kind and its message, in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
