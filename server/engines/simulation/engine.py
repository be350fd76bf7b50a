"""Virtual clients in PyTorch: tasks in, updates out, the same as from real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from device_profiles.errors import DataError
from device_profiles.task import Result, Task
from device_profiles.update import UpdateMetadata
from device_profiles.work import block_number, label
from server.averaging.aggregation import ReceivedUpdate
from server.engines.simulation.examples import Examples, batch_indices, crop_and_flip, model_inputs
from server.engines.simulation.inputs import Batches, FeatureCache, WeightsFiles, channels_last
from server.engines.simulation.networks import WholeWork, rows_of
from server.engines.simulation.optimizers import LocalStep
from server.engines.simulation.trainable import Terms, Trainable
from server.engines.simulation.trainables import TrainableSet
from server.engines.simulation.training import Trained, train_alone, train_stacked
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.fleet.local_optimizer import local_optimizer
from server.methods.sublayers import SUBLAYERS
from server.rounds.seam import Event, Failed, Updated

_GPU_STACK = 20
_MB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _ClientData:
    """A client's batches: rows of what is resident, through the frozen blocks where those are not cached."""

    steps: int
    inputs: Tensor
    labels: Tensor
    indices: Tensor
    prepare: Callable[[Tensor], Tensor]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Rows of a step, as the trained part takes them."""
        rows = self.indices[step]
        return self.prepare(self.inputs[rows]), self.labels[rows]


class SimulationEngine:
    """Trains clients on one device, alone or stacked.

    Args:
        fleet: training and simulation settings.
        work: what clients can be asked for.
        clients: each client's examples, on the device.
        there: who they are, with their promises; nobody comes or goes.
    """

    def __init__(
        self,
        fleet: Fleet,
        work: TrainableSet,
        *,
        clients: Mapping[str, Examples],
        there: Sequence[Client],
        device: torch.device,
    ) -> None:
        self._fleet = fleet
        self._work = work
        self._clients = clients
        self._there = {client.name: client for client in there}
        self._place = {client.name: place for place, client in enumerate(there)}
        self._device = device
        stack = fleet.simulation.stack
        self._stack = (1 if device.type == "cpu" else _GPU_STACK) if stack is None else stack
        self._weights = WeightsFiles(device)
        self._batches = Batches(fleet.model.input_shape, fleet.model.batch)
        self._features = FeatureCache(int(fleet.simulation.cache_mb * _MB))
        self._waiting: list[Task] = []

    def clients(self) -> Sequence[Client]:
        """Those of the fleet file."""
        return tuple(self._there.values())

    def submit(self, tasks: Sequence[Task]) -> None:
        """Virtual clients train while `events` is read."""
        self._waiting += tasks

    def events(self, deadline: float | None) -> Generator[Event]:
        """Train group by group, and tell each client's answer."""
        torch.set_num_threads(self._fleet.training.threads)
        for group in list(self._groups(self._waiting)):
            if deadline is not None and time.monotonic() >= deadline:
                return
            answers = self._train_group(group)
            done = {task.key for task in group}
            self._waiting = [task for task in self._waiting if task.key not in done]
            yield from answers

    def withdraw(self) -> None:
        """What has not been trained is not trained any more."""
        self._waiting = []

    def _groups(self, tasks: Sequence[Task]) -> Iterator[list[Task]]:
        """Tasks that can be stacked: of the same work, with equally many steps."""
        alike: dict[tuple[str, int], list[Task]] = {}
        for task in tasks:
            alike.setdefault((task.work.name, self._steps(task)), []).append(task)
        for group in alike.values():
            for start in range(0, len(group), self._stack):
                yield group[start : start + self._stack]

    def _steps(self, task: Task) -> int:
        if task.steps is not None:
            return task.steps
        assert task.epochs is not None  # one of the two is given
        return task.epochs * (len(self._clients[task.client]) // self._fleet.model.batch)

    def _train_group(self, group: Sequence[Task]) -> list[Event]:
        started = self._clock()
        task = group[0]
        trainable = self._work.of(task.work)
        weights = self._weights.read(task.weights, task.base_version, trainable)
        settings = self._fleet.training
        step = LocalStep(local_optimizer(settings), learning_rate=task.learning_rate, proximal=task.proximal)
        frozen = {name: tensor for name, tensor in weights.items() if name in trainable.read}
        try:
            data = [self._data(each, trainable, frozen) for each in group]
        except DataError as error:
            failed = Result(client="", status=str(error), seconds=0.0)
            return [Failed(task=each.key, result=replace(failed, client=each.client)) for each in group]
        terms = [self._terms(each, trainable) for each in group]
        torch.manual_seed(task.seed)  # for dropout
        if len(group) == 1:
            trained = [train_alone(trainable, weights, frozen, data[0], step, terms[0])]
        else:
            trained = train_stacked(trainable, weights, frozen, data, step, terms)
        seconds = (self._clock() - started) / len(group)
        return [
            self._answer(each, trainable, own, seconds, own_terms)
            for each, own, own_terms in zip(group, trained, terms, strict=True)
        ]

    def _clock(self) -> float:
        """Seconds: of the processor on a CPU, so that other processes do not count; else of the wall clock."""
        if self._device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.monotonic()

    def _terms(self, task: Task, trainable: Trainable) -> Terms:
        classes = None
        if isinstance(trainable, WholeWork) and trainable.masked:
            counts = torch.bincount(self._clients[task.client].labels, minlength=self._fleet.model.classes)
            classes = counts > 0
        first = None
        if isinstance(trainable, WholeWork) and trainable.trained_rows < 1:
            first = torch.tensor(self._place[task.client] % SUBLAYERS / SUBLAYERS, device=self._device)
        return Terms(classes=classes, consistency=task.consistency, first_row=first)

    def _data(self, task: Task, trainable: Trainable, frozen: dict[str, Tensor]) -> _ClientData:
        examples = self._clients[task.client]
        steps = self._steps(task)
        order = batch_indices(task.seed, len(examples), self._fleet.model.batch, steps)
        indices = torch.from_numpy(order).to(self._device)
        augmented = self._fleet.training.augment != "none"
        prefix = trainable.prefix
        if prefix is not None and not augmented:
            features = self._kept_features(task, trainable, frozen, steps)
            if features is not None:
                return _ClientData(
                    steps=steps, inputs=features, labels=examples.labels, indices=indices, prepare=_as_it_is
                )
        generator = torch.Generator().manual_seed(task.seed * 31 + 7)

        def prepare(inputs: Tensor) -> Tensor:
            x = model_inputs(inputs, self._fleet.model.input_shape)
            if augmented:
                x = crop_and_flip(x, generator)
            x = channels_last(x)
            if prefix is None:
                return x
            with torch.no_grad():
                return prefix(frozen, x)

        return _ClientData(
            steps=steps, inputs=examples.inputs, labels=examples.labels, indices=indices, prepare=prepare
        )

    def _kept_features(self, task: Task, trainable: Trainable, frozen: dict[str, Tensor], steps: int) -> Tensor | None:
        """What the frozen blocks make of the client's examples; None where it is not worth keeping, or has no room.

        Where these blocks change with every round, that is for this task alone, if it sees every example.
        """
        examples = self._clients[task.client]
        if task.prefix is not None:
            return self._features.get(
                task.client, task.prefix, lambda: self._batches.through(trainable, frozen, examples.inputs)
            )
        if steps * self._fleet.model.batch < len(examples):
            return None
        return self._batches.through(trainable, frozen, examples.inputs)

    def _answer(self, task: Task, trainable: Trainable, trained: Trained, seconds: float, terms: Terms) -> Updated:
        examples = len(self._clients[task.client])
        steps = self._steps(task)
        partition = self._work.pieces.partition
        up = sum(4 * tensor.numel() for tensor in trained.tensors.values())
        down = up
        if not task.has_frozen:
            down += self._weights.bytes_of([name for name in trainable.read if name not in trainable.trained])
        result = Result(
            client=task.client,
            status="ok",
            seconds=seconds,
            examples=examples,
            steps=steps,
            loss_first=trained.loss_first,
            loss_last=trained.loss_last,
            bytes_down=down,
            bytes_up=up,
        )
        rows = {}
        if terms.classes is not None and isinstance(trainable, WholeWork):
            rows = {name: terms.classes.cpu().numpy() for name in trainable.head}
        if terms.first_row is not None and isinstance(trainable, WholeWork):
            rows = {
                name: rows_of(tensor.shape[0], terms.first_row, trainable.trained_rows).cpu().numpy()
                for name, tensor in trainable.trained.items()
                if tensor.role == "parameter"
            }
        update = ReceivedUpdate(
            client=task.client,
            metadata=UpdateMetadata(
                block=block_number(task.work, partition),
                program=label(task.work, partition),
                examples=examples,
                steps=steps,
                base_version=task.base_version,
                loss_first=trained.loss_first,
                loss_last=trained.loss_last,
            ),
            tensors={
                name: np.ascontiguousarray(tensor.cpu().contiguous().numpy())
                for name, tensor in trained.tensors.items()
            },
            rows=rows,
        )
        return Updated(task=task.key, result=result, update=update)


def _as_it_is(x: Tensor) -> Tensor:
    return x
