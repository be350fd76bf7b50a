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
from typing import Any

from safetensors import SafetensorError, safe_open

from device_profiles.errors import ExecutionError, FormatError
from device_profiles.seal import check_seal
from device_profiles.update import UpdateMetadata
from edge_runtime.device.limits import LimitedProcess, Outcome, start_limited
from server.aggregation import ReceivedUpdate
from server.engines.engine import Result, Task
from server.fleet import TrainingSettings
from server.stopping import run_child
from server.work import Work

_PARENT_VARIABLE = "PROFL_EDGE_PARENT"
"""`profl-edge train` ends with the process whose id this names, where that is its parent."""


class LocalEngine:
    """Runs at most `parallel` clients at once on this machine.

    Args:
        bundle: the bundle every client has.
        data: each client's part.
        limits: each client's hard limit in bytes.
        test_data: the data set whose test split is evaluated, on the server and without a limit.
        cached: names of the work that each client also holds with the outputs of frozen blocks in a file.
        folder: for updates and the clients' messages, in a folder of this process: a client that outlived a killed
            server for a moment holds the lock of another file.
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
        cached: Mapping[str, frozenset[str]],
        folder: Path,
    ) -> None:
        self._bundle = bundle
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
        command = [sys.executable, "-m", "edge_runtime.device", "eval", str(self._bundle), "--block", str(work.block)]
        command += ["--data", self._test_data, "--weights", str(weights), "--json"]
        if self._test_examples is not None and not full:
            command += ["--limit", str(self._test_examples)]
        finished = run_child(command)
        if finished.returncode != 0:
            raise ExecutionError(f"evaluation of block {work.block}: {_last_line(finished.stderr)}")
        report = json.loads(finished.stdout)
        return float(report["accuracy"]), float(report["loss"])

    def _train_one(self, task: Task) -> tuple[Result, ReceivedUpdate | None]:
        output = self._folder / f"{task.client}.safetensors"
        output.unlink(missing_ok=True)
        started = time.monotonic()
        outcome, said, complaint, timed_out = self._run(task, output)
        seconds = time.monotonic() - started
        status = _status(outcome, complaint, timed_out, self._settings.timeout_seconds)
        report: dict[str, Any] = {}
        update = None
        if status == "ok":
            try:
                report = json.loads(said)
                update = read_update(task.client, output)
            except (json.JSONDecodeError, FormatError) as error:
                status = f"unreadable answer: {error}"
        result = Result(
            client=task.client,
            status=status,
            seconds=seconds,
            examples=update.metadata.examples if update else 0,
            steps=update.metadata.steps if update else 0,
            loss_first=report.get("loss_first"),
            loss_last=report.get("loss_last"),
            predicted_peak_bytes=report.get("predicted_peak_bytes"),
            measured_peak_bytes=report.get("measured_peak_bytes"),
            oom_kills=outcome.oom_kills,
            limit_kind=outcome.limit_kind,
            bytes_down=task.weights.stat().st_size,
            bytes_up=output.stat().st_size if update else 0,
        )
        return result, update

    def _end_clients(self) -> None:
        """End the clients that train; one that is being started ends itself."""
        self._ending = True
        for process in list(self._running):
            process.kill()

    def _run(self, task: Task, output: Path) -> tuple[Outcome, str, str, bool]:
        command = [sys.executable, "-m", "edge_runtime.device", "train", str(self._bundle)]
        command += ["--block", str(task.work.block), "--data", f"npz:{self._data[task.client]}"]
        if task.work.purpose == "joint":
            command += ["--first-block", str(task.work.first_block)]
        elif task.work.purpose != "grow":
            command += ["--purpose", task.work.purpose]
        command += ["--weights", str(task.weights), "--base-version", task.base_version, "-o", str(output)]
        command += ["--epochs", str(task.epochs)] if task.steps is None else ["--steps", str(task.steps)]
        command += ["--lr", str(task.learning_rate), "--seed", str(task.seed)]
        if self._settings.max_seconds:
            command += ["--max-seconds", str(self._settings.max_seconds)]
        if task.proximal:
            command += ["--proximal-mu", str(task.proximal)]
        if self._settings.augment != "none":
            command += ["--augment", self._settings.augment]
        if task.prefix is not None and task.work.name in self._cached[task.client]:
            command += ["--cache-prefix", "--cache-prefix-dtype", self._settings.cache_prefix]
            command += ["--cache-dir", str(prefix_folder(Path(self._caches.name) / task.client, task.prefix))]
        command += ["--threads", str(self._settings.threads), "--checkpoint-every", "0", "--json"]
        environment = {**os.environ, _PARENT_VARIABLE: str(os.getpid())}
        out, err = (self._folder / f"{task.client}.{name}" for name in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
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
        return outcome, out.read_text(errors="replace"), err.read_text(errors="replace"), timed_out


def prefix_folder(client: Path, prefix: str) -> Path:
    """A client's folder for what frozen blocks put out; what others of them did is of no use any more, and large."""
    folder = client / prefix
    for other in client.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    return folder


def read_update(client: str, path: Path) -> ReceivedUpdate:
    """Read an update a client wrote; raises FormatError naming the file, DigestError where its bytes are damaged."""
    try:
        check_seal(str(path), remedy="have it trained again")
        with safe_open(path, framework="numpy") as opened:
            metadata = UpdateMetadata.from_strings(opened.metadata(), str(path))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: {error}") from None
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors)


def _status(outcome: Outcome, complaint: str, timed_out: bool, timeout_seconds: float) -> str:
    if timed_out:
        return f"no answer within {timeout_seconds:.0f} s"
    if outcome.oom_kills:
        return "killed at its memory limit"
    if outcome.returncode < 0:
        return f"died by signal {-outcome.returncode}"
    if outcome.returncode > 0:
        return _last_line(complaint) or f"exit status {outcome.returncode}"
    return "ok"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
