"""The assembled model as ONNX, for inference anywhere."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from device_profiles.contract import IMAGES_INPUT, DType
from device_profiles.errors import UsageError
from device_profiles.files import atomic_file, check_output_file, named
from device_profiles.settings import Setting
from edge_runtime.export.capture.tracing import example_input, quiet
from edge_runtime.export.ir.faults import reason_of, remedy_for
from edge_runtime.export.models import default_dtype
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.models.preparation import UNCHANGED, Preparation
from edge_runtime.export.models.weights import read_weights

TOKENS_INPUT = "tokens"
_EXAMPLES = 2
"""Of the batch that is traced; the exporter would take a batch of one for a constant."""


def export_onnx(
    model: str,
    output: Path,
    *,
    width: int | None = None,
    input_shape: tuple[int, ...] = (3, 32, 32),
    input_dtype: DType | None = None,
    classes: int = 10,
    seed: int = 0,
    weights: Path | None = None,
    preparation: Preparation = UNCHANGED,
) -> None:
    """Export a whole model, in inference mode, as one ONNX file; `weights` is a safetensors file of all its tensors.

    Raises UsageError, naming the option, and FormatError for a file of weights that does not fit.
    """
    check_output_file(output)
    torch.manual_seed(seed)
    module = create_model(model, width=width, classes=classes, input_shape=input_shape, preparation=preparation)
    if weights is not None:
        module.load_state_dict(read_weights(weights, module.state_dict()))
    write_onnx(module, output, input_shape=input_shape, input_dtype=input_dtype or default_dtype(model))


def write_onnx(
    module: nn.Module, output: Path, *, input_shape: tuple[int, ...], input_dtype: DType = "float32"
) -> None:
    """Write `module` in inference mode: input `images` [batch, *input_shape] for any batch, output `logits`.

    The input of a model of tokens is `tokens`, int64. Raises UsageError with PyTorch's reason where it cannot.
    """
    try:
        with quiet():
            program = torch.onnx.export(
                module.eval(),
                (example_input(_EXAMPLES, input_shape, input_dtype),),
                input_names=[TOKENS_INPUT if input_dtype == "int64" else IMAGES_INPUT],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever a user's forward and PyTorch's exporter raise
        raise UsageError(
            ("torch cannot export the model for ", Setting("input_shape", input_shape), f": {reason_of(error)}"),
            field="target",
            value="onnx",
            remedy=remedy_for(error),
        ) from None
    assert program is not None
    with named(output), atomic_file(output) as temporary:
        temporary.write_bytes(program.model_proto.SerializeToString())
