"""PyTorch's side of `tools.bench.images`: `python -m tools.bench.image_step NETWORK --steps N`.

Trains the whole network as an eager PyTorch program does, with SGD and momentum, and prints its peak as JSON.
"""

from __future__ import annotations

import json

import click
import torch
from torch.nn import functional

from tools.bench.child import peak_resident_bytes
from tools.bench.image_networks import CLASSES, NETWORKS, made


@click.command()
@click.argument("network", type=click.Choice(list(NETWORKS)))
@click.option("--steps", type=int, default=1)
def main(network: str, steps: int) -> None:
    """Train some steps on one batch."""
    torch.set_num_threads(1)
    entry = NETWORKS[network]
    model = made(network).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    inputs, labels = torch.rand(entry.batch, *entry.shape) * 2 - 1, torch.arange(entry.batch) % CLASSES
    for _ in range(steps):
        loss = functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
    print(json.dumps({"measured_peak_bytes": peak_resident_bytes()}))


if __name__ == "__main__":
    main()
