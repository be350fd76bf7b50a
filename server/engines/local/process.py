"""The command of one client, and its process under the client's limit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from device_profiles.model import Partition
from device_profiles.task import Task
from device_profiles.trades import Trade
from device_profiles.work import Growing, Work, block_of
from edge_runtime.device.limits.processes import LimitedProcess, Outcome, start_limited
from server.fleet.fleet import TrainingSettings

_PARENT_VARIABLE = "PROFL_EDGE_PARENT"
"""`profl-edge train` ends with the process whose id this names, where that is its parent."""


class ClientProcesses:
    """Starts clients and ends them.

    Args:
        bundle: the bundle every client has.
        partition: of its model into blocks.
        data: each client's part.
        limits: each client's hard limit in bytes.
        cached: the work that each client also holds with the outputs of frozen blocks in a file.
        caches: where these files lie, a folder for each client.
        trades: by client, the variant of each work by its name, where that is not the default one.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        partition: Partition,
        data: Mapping[str, Path],
        limits: Mapping[str, int],
        settings: TrainingSettings,
        cached: Mapping[str, frozenset[Work]],
        caches: Path,
        trades: Mapping[str, Mapping[str, Trade]],
    ) -> None:
        self._bundle = bundle
        self._partition = partition
        self._data = data
        self._limits = limits
        self._settings = settings
        self._cached = cached
        self._caches = caches
        self._trades = trades
        self._running: set[LimitedProcess] = set()
        self._ending = False

    def run(self, task: Task, output: Path, said: Path, complaint: Path) -> tuple[Outcome, bool]:
        """Run a task's client to its end; whether that was because its time was over."""
        environment = {**os.environ, _PARENT_VARIABLE: str(os.getpid())}
        with said.open("wb") as stdout, complaint.open("wb") as stderr:
            process = start_limited(
                self._command(task, output),
                limit_bytes=self._limits[task.client],
                env=environment,
                stdout=stdout,
                stderr=stderr,
            )
            timed_out = False
            self._running.add(process)
            if self._ending:
                process.kill()
            try:
                process.wait(self._settings.timeout_seconds)
            except subprocess.TimeoutExpired:
                timed_out = True
                process.kill()
            except BaseException:
                process.kill()
                process.outcome()
                raise
            finally:
                self._running.discard(process)
            outcome = process.outcome()
        return outcome, timed_out

    def end(self) -> None:
        """End the clients that train; one that is being started ends itself."""
        self._ending = True
        for process in list(self._running):
            process.kill()

    def allow(self) -> None:
        """Clients may be started again."""
        self._ending = False

    def _asked(self, client: str, work: Work, *, cached: bool) -> list[str]:
        """The options that ask a client for `work`."""
        if isinstance(work, Growing) and not cached:
            trade = self._trades[client].get(work.name)
            return ["--work", work.name, *([] if trade is None else ["--variant", trade])]
        return ["--block", str(block_of(work, self._partition)), "--purpose", work.kind]

    def _command(self, task: Task, output: Path) -> list[str]:
        command = [sys.executable, "-m", "edge_runtime.device", "train", str(self._bundle)]
        cached = task.prefix is not None and task.work in self._cached[task.client]
        command += [*self._asked(task.client, task.work, cached=cached), "--data", f"npz:{self._data[task.client]}"]
        command += ["--weights", str(task.weights), "--base-version", task.base_version, "-o", str(output)]
        command += ["--epochs", str(task.epochs)] if task.steps is None else ["--steps", str(task.steps)]
        command += ["--lr", str(task.learning_rate), "--seed", str(task.seed)]
        if self._settings.max_seconds:
            command += ["--max-seconds", str(self._settings.max_seconds)]
        if task.proximal:
            command += ["--proximal-mu", str(task.proximal)]
        if self._settings.augment != "none":
            command += ["--augment", self._settings.augment]
        if cached and task.prefix is not None:
            folder = self._caches / task.client / task.prefix
            # What other frozen blocks put out is of no use any more, and large.
            remove_others(folder)
            command += ["--cache-prefix", "--cache-prefix-dtype", self._settings.cache_prefix]
            command += ["--cache-dir", str(folder)]
        command += ["--threads", str(self._settings.threads), "--checkpoint-every", "0", "--json"]
        return command


def remove_others(folder: Path) -> None:
    """Remove every folder beside `folder`, which need not be there."""
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other)
