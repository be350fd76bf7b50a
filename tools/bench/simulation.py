"""`python -m tools.bench.simulation`: a round of the simulation engine beside a plain PyTorch loop over the clients.

The plain loop is what one writes first: load the weights into a module, make an optimizer, train on batches of tensors
that are already in memory, read the state back. Both train the same clients from the same weights, in turns.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import click
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from device_profiles.task import Task
from device_profiles.work import Whole, Work, grow, label
from edge_runtime.export import models
from server.engines.simulation.engine import SimulationEngine
from server.engines.simulation.examples import Examples, batch_indices, model_inputs
from server.engines.simulation.trainables import TrainableSet
from server.fleet.client import alike
from server.fleet.fleet import DataSettings, Fleet, TrainingSettings
from server.fleet.model import ModelSettings
from server.fleet.population import ClientSettings
from server.fleet.virtual import SimulationSettings

_SHAPE = (3, 32, 32)


@click.command()
@click.option("--model", default="resnet18", show_default=True)
@click.option("--width", type=int, default=8, show_default=True)
@click.option("--batch", type=int, default=32, show_default=True)
@click.option("--clients", type=int, default=5, show_default=True)
@click.option("--examples", type=int, default=320, show_default=True, help="Of every client.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--stack", type=int, help="Clients trained as one.")
@click.option("--repeats", type=int, default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    model: str,
    width: int,
    batch: int,
    clients: int,
    examples: int,
    threads: int,
    device: str,
    stack: int | None,
    repeats: int,
    as_json: bool,
) -> None:
    """Medians of paired rounds, in seconds."""
    torch.set_num_threads(threads)
    names = [f"client{number}" for number in range(clients)]
    fleet = Fleet(
        model=ModelSettings(name=model, width=width, batch=batch),
        data=DataSettings(sources=("fashion-mnist",)),
        named=tuple(ClientSettings(name=name, limit_mb=1000) for name in names),
        training=TrainingSettings(threads=threads),
        simulation=SimulationSettings(device=device, stack=stack),
    )
    where = torch.device(device)
    data = {
        name: Examples(
            torch.randint(0, 256, (examples, 1, 28, 28), dtype=torch.uint8).to(where),
            torch.randint(0, 10, (examples,)).to(where),
        )
        for name in names
    }
    works = TrainableSet(fleet.model)
    engine = SimulationEngine(fleet, works, clients=data, there=alike(dict.fromkeys(names, 0), {}), device=where)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        save_file(works.pieces.initial_weights(), weights)
        measured: dict[str, list[float]] = {"plain loop": []}
        partition = works.pieces.partition
        asked: list[Work] = [Whole(), *(grow(partition, block.index) for block in partition.blocks)]
        measured |= {label(work, partition): [] for work in asked}
        for repeat in range(repeats + 1):
            measured["plain loop"].append(_plain(fleet, data, weights, where))
            for number, work in enumerate(asked):
                seconds = _engine(engine, names, weights, work, stage=number, version=str(repeat))
                measured[label(work, partition)].append(seconds)
    result = {name: statistics.median(seconds[1:]) for name, seconds in measured.items()}
    if as_json:
        click.echo(json.dumps({"device": device, "threads": threads, "seconds": result}))
        return
    click.echo(f"{model}, width {width}, {clients} clients x {examples} examples, batch {batch}, {device}")
    for name, seconds in result.items():
        click.echo(f"{name:<14}{seconds:8.3f} s   {seconds / result['plain loop']:.2f} of the plain loop")


def _engine(
    engine: SimulationEngine, names: list[str], weights: Path, work: Work, *, stage: int, version: str
) -> float:
    tasks = [
        Task(
            client=name,
            work=work,
            weights=weights,
            base_version=version,
            steps=None,
            epochs=1,
            learning_rate=0.01,
            seed=0,
            prefix=f"stage{stage}",
        )
        for name in names
    ]
    started = time.perf_counter()
    engine.submit(tasks)
    for _ in engine.events(None):
        pass
    return time.perf_counter() - started


def _plain(fleet: Fleet, data: dict[str, Examples], weights: Path, device: torch.device) -> float:
    settings = fleet.model
    started = time.perf_counter()
    state = load_file(weights)
    for examples in data.values():
        model = models.create(settings.name, width=settings.width).to(device).train()
        model.load_state_dict({name: state[name] for name in model.state_dict()})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        order = batch_indices(0, len(examples), settings.batch, len(examples) // settings.batch)
        for indices in torch.from_numpy(order).to(device):
            optimizer.zero_grad()
            logits = model(model_inputs(examples.inputs[indices], _SHAPE))
            functional.cross_entropy(logits, examples.labels[indices]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        _ = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
