"""One PyTorch step of the whole network: `python -m server.planner.pytorch_step MODEL THREADS [FOLDER]`.

MODEL is a fleet file's model section as JSON, FOLDER where modules of own models lie beside the working directory.
Prints `measured_peak_bytes` (VmHWM of this process).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.nn import functional

from device_profiles.errors import ProflError
from edge_runtime.export.cut.rows import rows_of
from edge_runtime.export.models import default_dtype
from edge_runtime.export.models.factory import create_model, find_models_in
from server.fleet.model import ModelSettings
from server.fleet.preparation import preparation_of


def main() -> int:
    """Train one step with SGD and momentum."""
    settings = msgspec.json.decode(sys.argv[1], type=ModelSettings)
    torch.set_num_threads(int(sys.argv[2]))
    for folder in sys.argv[3:]:
        find_models_in(Path(folder))
    try:
        _step(settings)
    except ProflError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    peak = next(
        line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")
    )
    print(json.dumps({"measured_peak_bytes": int(peak.split()[1]) * 1024}))
    return 0


def _step(settings: ModelSettings) -> None:
    model = create_model(
        settings.name,
        width=settings.width,
        classes=settings.classes,
        input_shape=settings.input_shape,
        preparation=preparation_of(settings),
    )
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    shape = (settings.batch, *settings.input_shape)
    # Token 0 is in every vocabulary.
    tokens = (settings.input_dtype or default_dtype(settings.name)) == "int64"
    inputs = torch.zeros(shape, dtype=torch.int64) if tokens else torch.randn(shape)
    logits = rows_of(_logits(model(inputs)), settings.classes)
    if settings.loss == "mse":
        loss = functional.mse_loss(logits, torch.zeros_like(logits))
    else:
        rows = logits.reshape(-1, settings.classes)
        labels = torch.randint(0, settings.classes, (len(rows),))
        loss = functional.cross_entropy(rows, labels, label_smoothing=settings.label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    optimizer.step()


def _logits(output: Any) -> torch.Tensor:
    """The one tensor of what the model returns, which an export takes out of a dictionary or tuple as well."""
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output


if __name__ == "__main__":
    sys.exit(main())
