"""Evaluates weights with PyTorch, on one device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from device_profiles.contract import IGNORED_LABEL
from device_profiles.errors import ExecutionError
from device_profiles.manifest import Loss
from device_profiles.work import Work, label
from edge_runtime.device.data.source import sample
from server.engines.simulation.examples import Examples, model_inputs
from server.engines.simulation.inputs import Batches, WeightsFiles, channels_last
from server.engines.simulation.losses import accuracy_of, loss_of
from server.engines.simulation.networks import WholeWork
from server.engines.simulation.trainable import Trainable
from server.engines.simulation.trainables import TrainableSet
from server.fleet.fleet import Fleet

_CALIBRATION_BATCHES = 40
"""Batches of clients' examples that HeteroFL's statistics are taken over: with momentum 0.1 the start is forgotten."""
_MB = 1 << 20


class SimulationEvaluator:
    """Accuracy and loss on test examples.

    Args:
        fleet: training and simulation settings.
        work: what can be evaluated.
        test: examples that are evaluated, on the device.
        clients: each client's examples, on the device: HeteroFL takes running statistics over them.
    """

    def __init__(
        self,
        fleet: Fleet,
        work: TrainableSet,
        *,
        test: Examples,
        clients: Mapping[str, Examples],
        device: torch.device,
    ) -> None:
        self._fleet = fleet
        self._work = work
        self._test = test
        self._clients = clients
        self._device = device
        self._weights = WeightsFiles(device)
        self._batches = Batches(fleet.model.input_shape, fleet.model.batch)
        self._drawn_tests: Examples | None = None
        self._tested: tuple[tuple[str, int], dict[str, Tensor], Tensor] | None = None

    def evaluate(self, work: Work, weights: Path, *, full: bool = False) -> tuple[float | None, float]:
        """Accuracy, if there is one, and loss on the test examples; `full`: all of them."""
        torch.set_num_threads(self._fleet.training.threads)
        trainable = self._work.of(work)
        state = self._weights.read(weights, None, trainable)
        limit = self._fleet.data.test_examples
        test = self._test
        if limit is not None and not full:
            test = self._few_tests(limit)
        if isinstance(trainable, WholeWork) and trainable.calibrated:
            state = self._calibrate(trainable, state)
        with torch.no_grad():
            if trainable.prefix is None:
                batches = self._batches.of(test.inputs)
            else:
                batches = self._batches.rows_of(self._test_features(work, trainable, state, test))
            answers = torch.cat([trainable.answer(state, x)[:rows] for x, rows in batches])
            if test.labels.ndim > 1 and not (test.labels != IGNORED_LABEL).any():
                raise ExecutionError(f"no label of the {len(test)} test examples counts; evaluate more of them")
            judged = Loss(name=self._fleet.model.loss)
            accuracy = accuracy_of(answers, test.labels, judged)
            loss = float(loss_of(answers, test.labels, judged))
        if not np.isfinite(loss):
            name = label(work, self._work.pieces.partition)
            raise ExecutionError(f"evaluation of {name}: the loss is {loss}; try a smaller learning_rate")
        return accuracy, loss

    def _few_tests(self, limit: int) -> Examples:
        """The same draw of test examples as `profl-edge eval --limit` makes."""
        if self._drawn_tests is None:
            labels = self._test.labels
            several = labels[0].numel() if labels.ndim > 1 else 0
            drawn = torch.tensor(sample(labels.flatten().tolist(), limit, rows=several).tolist(), device=labels.device)
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
        features = self._batches.through(trainable, frozen, test.inputs)
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
                x = channels_last(model_inputs(inputs[rows], self._fleet.model.input_shape))
                for part in trainable.training_parts:
                    x = part(calibrated, x)
        return calibrated
