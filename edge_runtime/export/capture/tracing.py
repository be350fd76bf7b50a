"""PyTorch's own graph of a module: `torch.export` in the modes that it trains in, or why it has none."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from device_profiles.contract import DType
from device_profiles.errors import UsageError
from device_profiles.settings import Setting
from edge_runtime.export.capture.own_gradients import watched
from edge_runtime.export.ir.faults import reason_of, remedy_for

_ONE_VALUE = "Expected more than 1 value per channel when training"
"""How PyTorch's BatchNorm begins its refusal of a batch that has no variance."""


class OneValueError(UsageError):
    """A BatchNorm would be trained with one value a channel: the batch of an execution is too small for this model."""


def exported(
    model: nn.Module, *, batch: int, input_shape: tuple[int, ...], input_dtype: DType = "float32"
) -> torch.export.ExportedProgram:
    """The module as it trains, as PyTorch's own graph; raises UsageError with PyTorch's reason where it has none."""
    try:
        example = example_input(batch, input_shape, input_dtype)
        with training_modes(model), quiet(), watched(model):
            return torch.export.export(model, (example,))
    except UsageError:
        raise
    except Exception as error:  # whatever a user's forward and PyTorch's tracer raise
        if batch == 1 and _ONE_VALUE in str(error):
            raise OneValueError("a BatchNorm of the model sees one value a channel in an execution") from None
        raise UsageError(
            ("torch.export cannot trace the model for ", Setting("input_shape", input_shape), f": {reason_of(error)}"),
            remedy=remedy_for(error),
        ) from None


@contextmanager
def training_modes(model: nn.Module) -> Iterator[None]:
    """The modes that the module is trained in: `model.train()` for one that is in inference mode as a whole.

    A part that the user's factory left in inference mode, such as a BatchNorm to be kept as it is, stays in it.
    """
    with kept_modes(model):
        if not model.training:
            model.train()
        yield


@contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Every module is in the mode afterwards that it was in before."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def example_input(batch: int, input_shape: tuple[int, ...], input_dtype: DType) -> torch.Tensor:
    """Zeros as a model takes them: [batch, *input_shape], of float32 or of tokens (int64)."""
    return torch.zeros(batch, *input_shape, dtype=torch.int64 if input_dtype == "int64" else torch.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what PyTorch's exporters log, print and warn of away from the user; errors are reported in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
