"""Evaluates weights by `profl-edge eval`, on the server and without a limit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from device_profiles.errors import ExecutionError
from device_profiles.model import Partition
from device_profiles.work import Work, block_of
from server.rounds.stopping import run_child


class BundleEvaluator:
    """Evaluates with all the machine's cores.

    Args:
        bundle: the bundle every client has.
        partition: of its model into blocks.
        data: the data set whose test split is evaluated.
        examples: of it, drawn for evaluations that are not full; None for all.
    """

    def __init__(self, bundle: Path, partition: Partition, *, data: str, examples: int | None) -> None:
        self._bundle = bundle
        self._partition = partition
        self._data = data
        self._examples = examples

    def evaluate(self, work: Work, weights: Path, *, full: bool = False) -> tuple[float | None, float]:
        """Accuracy, if there is one, and loss on the test examples; `full`: on every one of them."""
        block = str(block_of(work, self._partition))
        command = [sys.executable, "-m", "edge_runtime.device", "eval", str(self._bundle), "--block", block]
        command += ["--data", self._data, "--weights", str(weights), "--json"]
        if self._examples is not None and not full:
            command += ["--limit", str(self._examples)]
        finished = run_child(command)
        if finished.returncode != 0:
            lines = finished.stderr.strip().splitlines()
            raise ExecutionError(f"evaluation of block {block}: {lines[-1] if lines else ''}")
        report = json.loads(finished.stdout)
        accuracy = report["accuracy"]
        return None if accuracy is None else float(accuracy), float(report["loss"])
