"""The `local` engine: every client is a real `profl-edge train` process under its own hard memory limit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from device_profiles.errors import ExecutionError, FormatError, ProflError
from device_profiles.work import Joint, Work, blocks_of
from edge_runtime.device.limits.processes import LimitedProcess, Outcome, start_limited
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.fleet import TrainingSettings
from server.fleet.structure import Structure
from server.judging.strangers import Answer, last_words, plain, read_answer, read_update
from server.rounds.seam import Result, Task
from server.rounds.stopping import run_child

_PARENT_VARIABLE = "PROFL_EDGE_PARENT"
"""`profl-edge train` ends with the process whose id this names, where that is its parent."""


class LocalEngine:
    """Runs at most `parallel` clients at once on this machine.

    Args:
        bundle: the bundle every client has.
        data: each client's part.
        limits: each client's hard limit in bytes.
        test_data: the data set whose test split is evaluated, on the server and without a limit.
        cached: the work that each client also holds with the outputs of frozen blocks in a file.
        folder: for updates and the clients' messages, in a folder of this process: a client that outlived a killed
            server for a moment holds the lock of another file.
        structure: of the bundle's model; an update that is larger than what it says is not read.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        data: Mapping[str, Path],
        limits: Mapping[str, int],
        test_data: str,
        test_examples: int | None,
        settings: TrainingSettings,
        cached: Mapping[str, frozenset[Work]],
        folder: Path,
        structure: Structure,
    ) -> None:
        self._bundle = bundle
        self._structure = structure
        self._data = data
        self._limits = limits
        self._test_data = test_data
        self._test_examples = test_examples
        self._settings = settings
        self._cached = cached
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="server-", dir=folder))
        self._running: set[LimitedProcess] = set()
        self._ending = False
        # Large, and of no use to anybody after this process: goes with the engine, or with the next one's start.
        self._caches = tempfile.TemporaryDirectory(prefix="cache-", dir=folder)

    def train(self, tasks: Sequence[Task], done: Callable[[Result], None]) -> tuple[list[Result], list[ReceivedUpdate]]:
        """Train every task's client; results and updates in the order of `tasks`."""
        finished: dict[str, tuple[Result, ReceivedUpdate | None]] = {}
        with ThreadPoolExecutor(max_workers=self._settings.parallel) as pool:
            futures = {pool.submit(self._train_one, task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    result, update = future.result()
                    finished[result.client] = (result, update)
                    done(result)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._end_clients()
                raise
        ordered = [finished[task.client] for task in tasks]
        return [result for result, _ in ordered], [update for _, update in ordered if update is not None]

    def evaluate(self, work: Work, weights: Path, *, full: bool = False) -> tuple[float, float]:
        """Accuracy and loss by `profl-edge eval` with all the machine's cores; `full`: on every test example."""
        block = str(self._structure.block(work))
        command = [sys.executable, "-m", "edge_runtime.device", "eval", str(self._bundle), "--block", block]
        command += ["--data", self._test_data, "--weights", str(weights), "--json"]
        if self._test_examples is not None and not full:
            command += ["--limit", str(self._test_examples)]
        finished = run_child(command)
        if finished.returncode != 0:
            raise ExecutionError(f"evaluation of block {block}: {_last_line(finished.stderr)}")
        report = json.loads(finished.stdout)
        return float(report["accuracy"]), float(report["loss"])

    def _train_one(self, task: Task) -> tuple[Result, ReceivedUpdate | None]:
        """Whatever a client does, and whatever of it cannot be read, is a result with its reason."""
        started = time.monotonic()
        try:
            return self._ask(task)
        except (ProflError, OSError, MemoryError) as error:
            status = f"could not be run: {plain(str(error) or type(error).__name__)}"
            return Result(client=task.client, status=status, seconds=time.monotonic() - started), None

    def _ask(self, task: Task) -> tuple[Result, ReceivedUpdate | None]:
        output, said, complaint = (self._folder / f"{task.client}.{end}" for end in ("safetensors", "out", "err"))
        _remove(output)
        started = time.monotonic()
        outcome, timed_out = self._run(task, output, said, complaint)
        seconds = time.monotonic() - started
        status = _status(outcome, last_words(complaint), timed_out, self._settings.timeout_seconds)
        answer = Answer(loss_first=None, loss_last=None, predicted_peak_bytes=None, measured_peak_bytes=None)
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
            predicted_peak_bytes=answer.predicted_peak_bytes,
            measured_peak_bytes=answer.measured_peak_bytes,
            oom_kills=outcome.oom_kills,
            limit_kind=outcome.limit_kind,
            bytes_down=task.weights.stat().st_size,
            bytes_up=output.stat().st_size if update else 0,
        )
        return result, update

    def _asked(self, work: Work) -> list[str]:
        """The options that ask for `work`."""
        blocks = blocks_of(work, self._structure.partition)
        assert blocks is not None  # the bundle has a program of it
        options = ["--block", str(blocks[1])]
        if isinstance(work, Joint):
            return [*options, "--first-block", str(blocks[0])]
        return [*options, "--purpose", work.kind]

    def _end_clients(self) -> None:
        """End the clients that train; one that is being started ends itself."""
        self._ending = True
        for process in list(self._running):
            process.kill()

    def _run(self, task: Task, output: Path, said: Path, complaint: Path) -> tuple[Outcome, bool]:
        command = [sys.executable, "-m", "edge_runtime.device", "train", str(self._bundle)]
        command += [*self._asked(task.work), "--data", f"npz:{self._data[task.client]}"]
        command += ["--weights", str(task.weights), "--base-version", task.base_version, "-o", str(output)]
        command += ["--epochs", str(task.epochs)] if task.steps is None else ["--steps", str(task.steps)]
        command += ["--lr", str(task.learning_rate), "--seed", str(task.seed)]
        if self._settings.max_seconds:
            command += ["--max-seconds", str(self._settings.max_seconds)]
        if task.proximal:
            command += ["--proximal-mu", str(task.proximal)]
        if self._settings.augment != "none":
            command += ["--augment", self._settings.augment]
        if task.prefix is not None and task.work in self._cached[task.client]:
            command += ["--cache-prefix", "--cache-prefix-dtype", self._settings.cache_prefix]
            command += ["--cache-dir", str(remove_other_prefixes(Path(self._caches.name) / task.client, task.prefix))]
        command += ["--threads", str(self._settings.threads), "--checkpoint-every", "0", "--json"]
        environment = {**os.environ, _PARENT_VARIABLE: str(os.getpid())}
        with said.open("wb") as stdout, complaint.open("wb") as stderr:
            process = start_limited(
                command, limit_bytes=self._limits[task.client], env=environment, stdout=stdout, stderr=stderr
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


def remove_other_prefixes(client: Path, prefix: str) -> Path:
    """Remove what blocks of other prefixes put out, which is of no use any more and large; the folder of this one."""
    folder = client / prefix
    for other in client.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    return folder


def _status(outcome: Outcome, complaint: str, timed_out: bool, timeout_seconds: float) -> str:
    if timed_out:
        return f"no answer within {timeout_seconds:.0f} s"
    if outcome.oom_kills:
        return "killed at its memory limit"
    if outcome.returncode < 0:
        return f"died by signal {-outcome.returncode}"
    if outcome.returncode > 0:
        return complaint or f"exit status {outcome.returncode}"
    return "ok"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _remove(path: Path) -> None:
    """Whatever lies there: a client may have left a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
