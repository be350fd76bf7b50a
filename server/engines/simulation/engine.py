"""Virtual clients in PyTorch: tasks in, updates out, the same as from real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from device_profiles.errors import DataError, ExecutionError, UsageError
from device_profiles.update import UpdateMetadata
from device_profiles.work import Work, blocks_of, label
from edge_runtime.device.data.source import sample
from server.averaging.aggregation import ReceivedUpdate
from server.engines.simulation.examples import Examples, batch_indices, crop_and_flip, model_inputs
from server.engines.simulation.trainables import Terms, Trainable, TrainableSet, WholeWork
from server.engines.simulation.training import Sgd, Trained, train_alone, train_stacked
from server.fleet.fleet import Fleet
from server.rounds.seam import Result, Task

_CALIBRATION_BATCHES = 40
"""Batches of clients' examples that HeteroFL's statistics are taken over: with momentum 0.1 the start is forgotten."""
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
        test: examples that are evaluated, on the device.
        promises: what a client was promised, by client and work, for reports.
    """

    def __init__(
        self,
        fleet: Fleet,
        work: TrainableSet,
        *,
        clients: Mapping[str, Examples],
        test: Examples,
        promises: Mapping[str, Mapping[str, int]],
        device: torch.device,
    ) -> None:
        self._fleet = fleet
        self._work = work
        self._clients = clients
        self._test = test
        self._drawn_tests: Examples | None = None
        self._promises = promises
        self._device = device
        stack = fleet.simulation.stack
        self._stack = (1 if device.type == "cpu" else _GPU_STACK) if stack is None else stack
        self._loaded: tuple[str, dict[str, Tensor]] | None = None
        self._features = _FeatureCache(int(fleet.simulation.cache_mb * _MB))
        self._tested: tuple[tuple[str, int], dict[str, Tensor], Tensor] | None = None

    def train(self, tasks: Sequence[Task], done: Callable[[Result], None]) -> tuple[list[Result], list[ReceivedUpdate]]:
        """Train every task's client; results and updates in the order of `tasks`."""
        torch.set_num_threads(self._fleet.training.threads)
        finished: dict[str, tuple[Result, ReceivedUpdate | None]] = {}
        for group in self._groups(tasks):
            for task, answer in zip(group, self._train_group(group), strict=True):
                finished[task.client] = answer
                done(answer[0])
        ordered = [finished[task.client] for task in tasks]
        return [result for result, _ in ordered], [update for _, update in ordered if update is not None]

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

    def _train_group(self, group: Sequence[Task]) -> list[tuple[Result, ReceivedUpdate | None]]:
        started = self._clock()
        task = group[0]
        trainable = self._work.of(task.work)
        weights = self._load(task.weights, task.base_version, trainable)
        settings = self._fleet.training
        sgd = Sgd(
            learning_rate=task.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            proximal=task.proximal,
            clip_norm=settings.clip_norm,
        )
        frozen = {name: tensor for name, tensor in weights.items() if name in trainable.read}
        try:
            data = [self._data(each, trainable, frozen) for each in group]
        except DataError as error:
            return [(Result(client=each.client, status=str(error), seconds=0.0), None) for each in group]
        terms = [self._terms(each, trainable) for each in group]
        torch.manual_seed(task.seed)  # for dropout
        if len(group) == 1:
            trained = [train_alone(trainable, weights, frozen, data[0], sgd, terms[0])]
        else:
            trained = train_stacked(trainable, weights, frozen, data, sgd, terms)
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
        return Terms(classes=classes, consistency=task.consistency)

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
            x = _channels_last(x)
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
                task.client, task.prefix, lambda: self._through(trainable, frozen, examples.inputs)
            )
        if steps * self._fleet.model.batch < len(examples):
            return None
        return self._through(trainable, frozen, examples.inputs)

    def _through(self, trainable: Trainable, frozen: dict[str, Tensor], inputs: Tensor) -> Tensor:
        """What the frozen blocks make of all `inputs`, in batches."""
        prefix = trainable.prefix
        assert prefix is not None  # asked by those that have one
        with torch.no_grad():
            return torch.cat([prefix(frozen, x)[:rows] for x, rows in self._batches(inputs)])

    def _batches(self, inputs: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Model inputs in batches of the captured size, the last one filled up, with how many count."""
        for part, rows in _rows_of(inputs, self._fleet.model.batch):
            yield _channels_last(model_inputs(part, self._fleet.model.input_shape)), rows

    def _answer(
        self, task: Task, trainable: Trainable, trained: Trained, seconds: float, terms: Terms
    ) -> tuple[Result, ReceivedUpdate | None]:
        examples = len(self._clients[task.client])
        steps = self._steps(task)
        partition = self._work.pieces.partition
        blocks = blocks_of(task.work, partition)
        up = sum(4 * tensor.numel() for tensor in trained.tensors.values())
        down = up
        if not task.has_frozen:
            weights = self._loaded[1] if self._loaded else {}
            down += sum(4 * weights[name].numel() for name in trainable.read if name not in trainable.trained)
        result = Result(
            client=task.client,
            status="ok",
            seconds=seconds,
            examples=examples,
            steps=steps,
            loss_first=trained.loss_first,
            loss_last=trained.loss_last,
            predicted_peak_bytes=self._promises[task.client].get(task.work.name),
            bytes_down=down,
            bytes_up=up,
        )
        rows = {}
        if terms.classes is not None and isinstance(trainable, WholeWork):
            rows = {name: terms.classes.cpu().numpy() for name in trainable.head}
        update = ReceivedUpdate(
            client=task.client,
            metadata=UpdateMetadata(
                block=0 if blocks is None else blocks[1],
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
        return result, update

    def evaluate(self, work: Work, weights: Path, *, full: bool = False) -> tuple[float, float]:
        """Accuracy and loss on the test examples; `full`: all of them."""
        torch.set_num_threads(self._fleet.training.threads)
        trainable = self._work.of(work)
        state = self._load(weights, None, trainable)
        limit = self._fleet.data.test_examples
        test = self._test
        if limit is not None and not full:
            test = self._few_tests(limit)
        if isinstance(trainable, WholeWork) and trainable.calibrated:
            state = self._calibrate(trainable, state)
        with torch.no_grad():
            if trainable.prefix is None:
                batches = self._batches(test.inputs)
            else:
                batches = _rows_of(self._test_features(work, trainable, state, test), self._fleet.model.batch)
            answers = torch.cat([trainable.answer(state, x)[:rows] for x, rows in batches])
            accuracy = float((answers.argmax(1) == test.labels).double().mean())
            loss = float(functional.cross_entropy(answers, test.labels))
        if not np.isfinite(loss):
            name = label(work, self._work.pieces.partition)
            raise ExecutionError(f"evaluation of {name}: the loss is {loss}; try a smaller learning_rate")
        return accuracy, loss

    def _few_tests(self, limit: int) -> Examples:
        """The same draw of test examples as `profl-edge eval --limit` makes."""
        if self._drawn_tests is None:
            drawn = torch.tensor(sample(self._test.labels.tolist(), limit).tolist(), device=self._test.labels.device)
            self._drawn_tests = Examples(self._test.inputs[drawn], self._test.labels[drawn])
        return self._drawn_tests

    def _test_features(self, work: Work, trainable: Trainable, state: dict[str, Tensor], test: Examples) -> Tensor:
        """What the frozen blocks make of the test examples; kept while they stay as they are."""
        assert trainable.prefix is not None  # asked for those that have one
        key = (work.name, len(test))
        frozen = {name: state[name] for name in trainable.prefix.names}
        if self._tested is not None and self._tested[0] == key:
            kept = self._tested[1]
            if all(torch.equal(kept[name], tensor) for name, tensor in frozen.items()):
                return self._tested[2]
        features = self._through(trainable, frozen, test.inputs)
        if features.nbytes <= self._fleet.simulation.cache_mb * _MB:
            self._tested = (key, {name: tensor.clone() for name, tensor in frozen.items()}, features)
        return features

    def _calibrate(self, trainable: WholeWork, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Running statistics over clients' examples, with the weights that are evaluated."""
        calibrated = {name: tensor.clone() if "running_" in name else tensor for name, tensor in state.items()}
        size = self._fleet.model.batch
        inputs = torch.cat([examples.inputs[:size] for examples in self._clients.values()])
        order = np.random.default_rng(0).permutation(len(inputs))[: _CALIBRATION_BATCHES * size]
        with torch.no_grad():
            for start in range(0, len(order) - size + 1, size):
                rows = torch.from_numpy(order[start : start + size]).to(self._device)
                x = _channels_last(model_inputs(inputs[rows], self._fleet.model.input_shape))
                for part in trainable.training_parts:
                    x = part(calibrated, x)
        return calibrated

    def _load(self, path: Path, version: str | None, trainable: Trainable) -> dict[str, Tensor]:
        """Weights of a file on the device, each as large as the work takes it."""
        if version is None or self._loaded is None or self._loaded[0] != version:
            loaded = {name: tensor.to(self._device) for name, tensor in load_file(path).items()}
            if version is not None:
                self._loaded = (version, loaded)
        else:
            loaded = self._loaded[1]
        cut = {}
        for name, tensor in trainable.trained.items():
            if tuple(loaded[name].shape) != tensor.shape:
                cut[name] = loaded[name][tuple(slice(extent) for extent in tensor.shape)].contiguous()
        return {**loaded, **cut}


class _FeatureCache:
    """Outputs of frozen blocks by client, up to a number of bytes, and as long as those blocks stay as they are."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prefix = ""
        self._kept: dict[str, Tensor] = {}
        self._bytes = 0

    def get(self, client: str, prefix: str, make: Callable[[], Tensor]) -> Tensor | None:
        """The client's features behind the frozen blocks of a task's `prefix`; None where they would not fit."""
        if prefix != self._prefix:
            self._kept.clear()
            self._prefix, self._bytes = prefix, 0
        if client not in self._kept:
            if self._bytes >= self._limit:
                return None
            self._kept[client] = make()
            self._bytes += self._kept[client].nbytes
        return self._kept[client]


def choose_device(name: str) -> torch.device:
    """The device a fleet file names; raises UsageError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            reason, field="simulation.device", value=name, remedy="use auto, cpu, or cuda where torch finds a GPU"
        ) from None
    return device


def _rows_of(features: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    """Batches of `size`, the last one filled up, with how many count."""
    for start in range(0, len(features), size):
        part = features[start : start + size]
        rows = len(part)
        yield (part if rows == size else torch.cat([part, part[:1].expand(size - rows, *part.shape[1:])])), rows


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _channels_last(x: Tensor) -> Tensor:
    if x.ndim == 4 and x.device.type == "cpu":
        return x.contiguous(memory_format=torch.channels_last)
    return x
