"""The `local` engine: every client is a real `profl-edge train` process under its own hard memory limit."""

from __future__ import annotations

import queue
import shutil
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from device_profiles.errors import DivergedError, FormatError, ProflError
from device_profiles.task import Result, Task, diverged
from device_profiles.work import Work
from edge_runtime.device.limits.processes import Outcome
from server.engines.local.process import ClientProcesses
from server.fleet.client import Client
from server.fleet.fleet import TrainingSettings
from server.fleet.structure import Structure
from server.judging.strangers import Answer, last_words, plain, read_answer, read_update
from server.rounds.seam import Event, Failed, Updated


class LocalEngine:
    """Runs at most `parallel` clients at once on this machine.

    Args:
        bundle: the bundle every client has.
        clients: who is there; nobody comes or goes.
        data: each client's part.
        cached: the work that each client also holds with the outputs of frozen blocks in a file.
        folder: for updates and the clients' messages, in a folder of this process: a client that outlived a killed
            server for a moment holds the lock of another file.
        structure: of the bundle's model; an update that is larger than what it says is not read.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        clients: Sequence[Client],
        data: Mapping[str, Path],
        limits: Mapping[str, int],
        settings: TrainingSettings,
        cached: Mapping[str, frozenset[Work]],
        folder: Path,
        structure: Structure,
    ) -> None:
        self._clients = tuple(clients)
        self._structure = structure
        self._settings = settings
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="server-", dir=folder))
        # Large, and of no use to anybody after this process: goes with the engine, or with the next one's start.
        self._caches = tempfile.TemporaryDirectory(prefix="cache-", dir=folder)
        self._processes = ClientProcesses(
            bundle,
            partition=structure.partition,
            data=data,
            limits=limits,
            settings=settings,
            cached=cached,
            trades={client.name: client.trades for client in clients},
            caches=Path(self._caches.name),
        )
        self._pool: ThreadPoolExecutor | None = None
        self._out = 0
        self._answers: queue.SimpleQueue[Updated | Failed] = queue.SimpleQueue()

    def clients(self) -> Sequence[Client]:
        """Those of the fleet file."""
        return self._clients

    def submit(self, tasks: Sequence[Task]) -> None:
        """Start the clients of these tasks, some at a time."""
        pool = self._pool = ThreadPoolExecutor(max_workers=self._settings.parallel)
        answers = self._answers
        self._out += len(tasks)

        def train(task: Task) -> None:
            answers.put(self._train(task))

        for task in tasks:
            pool.submit(train, task)

    def events(self, deadline: float | None) -> Generator[Event]:
        """Answers in the order in which clients end."""
        while self._out:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                event = self._answers.get(timeout=left)
            except queue.Empty:
                return
            self._out -= 1
            yield event

    def withdraw(self) -> None:
        """End the clients that train; one that is being started ends itself. What they would have said is lost."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        # Nobody reads the old queue any more, and clients of the next tasks are not ended.
        self._answers, self._out = queue.SimpleQueue(), 0
        pool.shutdown(wait=False, cancel_futures=True)
        self._processes.end()
        # Their files have the names of the next ones.
        pool.shutdown(wait=True)
        self._processes.allow()

    def _train(self, task: Task) -> Updated | Failed:
        """Whatever a client does, and whatever of it cannot be read, is an answer with its reason."""
        started = time.monotonic()
        try:
            return self._ask(task)
        except (ProflError, OSError, MemoryError) as error:
            status = f"could not be run: {plain(str(error) or type(error).__name__)}"
            result = Result(client=task.client, status=status, seconds=time.monotonic() - started)
            return Failed(task=task.key, result=result)

    def _ask(self, task: Task) -> Updated | Failed:
        output, said, complaint = (self._folder / f"{task.client}.{end}" for end in ("safetensors", "out", "err"))
        _remove(output)
        started = time.monotonic()
        outcome, timed_out = self._processes.run(task, output, said, complaint)
        seconds = time.monotonic() - started
        status = _status(outcome, last_words(complaint), timed_out, self._settings.timeout_seconds)
        answer = Answer(loss_first=None, loss_last=None, measured_peak_bytes=None)
        update = None
        if status == "ok":
            try:
                answer = read_answer(said)
                update = read_update(task.client, output, self._structure.tensors(task.work))
            except FormatError as error:
                status = f"unreadable answer: {error}"
        result = Result(
            client=task.client,
            status=status,
            seconds=seconds,
            examples=update.metadata.examples if update else 0,
            steps=update.metadata.steps if update else 0,
            loss_first=answer.loss_first,
            loss_last=answer.loss_last,
            measured_peak_bytes=answer.measured_peak_bytes,
            oom_kills=outcome.oom_kills,
            limit_kind=outcome.limit_kind,
            bytes_down=task.weights.stat().st_size,
            bytes_up=output.stat().st_size if update else 0,
        )
        if update is None:
            return Failed(task=task.key, result=result)
        return Updated(task=task.key, result=result, update=update)


def _status(outcome: Outcome, complaint: str, timed_out: bool, timeout_seconds: float) -> str:
    if timed_out:
        return f"no answer within {timeout_seconds:.0f} s"
    if outcome.oom_kills:
        return "killed at its memory limit"
    if outcome.returncode < 0:
        return f"died by signal {-outcome.returncode}"
    if outcome.returncode == DivergedError.exit_status:
        return diverged(complaint)
    if outcome.returncode > 0:
        return complaint or f"exit status {outcome.returncode}"
    return "ok"


def _remove(path: Path) -> None:
    """Whatever lies there: a client may have left a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
