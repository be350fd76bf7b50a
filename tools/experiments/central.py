"""Train a built-in model on all clients' data together with plain PyTorch: what a federation is measured against.

    python -m tools.experiments.central --model cnn1d --data smartwatch
    python -m tools.experiments.central --model text_transformer --data shakespeare:data/shakespeare --optimizer adamw

Prints one JSON object: accuracy on the held-out part for every seed, their mean and spread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn

from device_profiles.optimizers import OPTIMIZERS
from edge_runtime.device.data import Split, open_data
from edge_runtime.export import models

_EVALUATED_AT_ONCE = 512


def main() -> None:
    """Train once for every seed and print what came of it."""
    options = _options()
    model = models.built_in(options.model)
    train, test = (_load(options.data, split, model) for split in ("train", "test"))
    started = time.monotonic()
    accuracies = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        module = models.create(
            model.name, width=options.width, classes=model.classes, input_channels=model.input_shape[0]
        )
        _train(module, train, options)
        accuracies.append(_accuracy(module, test))
        print(f"seed {seed}: accuracy {accuracies[-1]:.4f}", file=sys.stderr)
    report = {
        "model": model.name,
        "data": options.data,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "train_examples": len(train[1]),
        "test_examples": len(test[1]),
        "accuracies": accuracies,
        "accuracy_mean": statistics.mean(accuracies),
        "accuracy_spread": max(accuracies) - min(accuracies),
        "largest_class_share": test[1].bincount().max().item() / len(test[1]),
        "seconds": time.monotonic() - started,
    }
    print(json.dumps(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=sorted(models.BUILT_IN))
    parser.add_argument("--data", required=True, help="as of profl-edge train")
    parser.add_argument("--width", type=int)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="sgd")
    parser.add_argument(
        "--lr", type=float, help="at the start, falling to 0 as a cosine [0.05 for sgd, 0.001 for adamw]"
    )
    parser.add_argument("--seeds", type=int, default=1)
    return parser.parse_args()


def _load(spec: str, split: Split, model: models.BuiltIn) -> tuple[Tensor, Tensor]:
    """All inputs and labels of a split."""
    source = open_data(spec, split=split, input_shape=model.input_shape, input_dtype=model.input_dtype)
    inputs = np.empty((len(source), *model.input_shape), model.input_dtype)
    source.fetch(range(len(source)), inputs)
    return torch.from_numpy(inputs), torch.from_numpy(np.array(source.labels))


def _train(module: nn.Module, data: tuple[Tensor, Tensor], options: argparse.Namespace) -> None:
    inputs, labels = data
    optimizer: torch.optim.Optimizer
    if options.optimizer == "sgd":
        optimizer = torch.optim.SGD(module.parameters(), lr=options.lr or 0.05, momentum=0.9, weight_decay=5e-4)
    else:
        optimizer = torch.optim.AdamW(module.parameters(), lr=options.lr or 1e-3)
    steps = len(labels) // options.batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * steps)
    module.train()
    for epoch in range(options.epochs):
        for chosen in torch.randperm(len(labels))[: steps * options.batch].view(steps, options.batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(inputs[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {options.epochs}: last loss {loss.item():.4f}", file=sys.stderr)


@torch.no_grad()
def _accuracy(module: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    module.eval()
    inputs, labels = data
    places = (slice(at, at + _EVALUATED_AT_ONCE) for at in range(0, len(labels), _EVALUATED_AT_ONCE))
    right = sum(int((module(inputs[place]).argmax(1) == labels[place]).sum()) for place in places)
    return right / len(labels)


if __name__ == "__main__":
    main()
