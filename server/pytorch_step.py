"""One PyTorch step of the whole network, as a process of its own: `python -m server.pytorch_step MODEL THREADS`.

MODEL is a fleet file's model section as JSON. Prints `measured_peak_bytes` (VmHWM of this process).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import torch
from torch.nn import functional

from edge_runtime.export import models
from server.fleet import ModelSettings


def main() -> None:
    """Train one step with SGD and momentum on random inputs."""
    settings = msgspec.json.decode(sys.argv[1], type=ModelSettings)
    torch.set_num_threads(int(sys.argv[2]))
    model = models.create(
        settings.name, width=settings.width, classes=settings.classes, input_channels=settings.input_shape[0]
    )
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    shape = (settings.batch, *settings.input_shape)
    tokens = models.default_dtype(settings.name) == "int64"
    inputs = torch.randint(0, settings.classes, shape) if tokens else torch.randn(shape)
    labels = torch.randint(0, settings.classes, (settings.batch,))
    functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch's own
    optimizer.step()
    peak = next(
        line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")
    )
    print(json.dumps({"measured_peak_bytes": int(peak.split()[1]) * 1024}))


if __name__ == "__main__":
    main()
