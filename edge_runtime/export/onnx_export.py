"""The assembled model as ONNX, for inference anywhere."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from device_profiles.files import atomic_file


def export_onnx(module: nn.Module, output: Path, *, input_shape: tuple[int, ...], batch: int = 1) -> None:
    """Write `module` in inference mode as one ONNX file; input `images` [batch, *input_shape], output `logits`."""
    example = torch.zeros(batch, *input_shape)
    program = torch.onnx.export(
        module.eval(), (example,), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
    )
    assert program is not None
    with atomic_file(output) as temporary:
        temporary.write_bytes(program.model_proto.SerializeToString())
