"""Starts the server app of every run that was submitted, as Flower's SuperExec would, and knows its processes.

Flower's own is not used because it finds commands by PATH, which may lead to another Python, and shows a run's token to
everybody on the machine.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from server.federation.home.certificates import authority_file
from server.federation.home.folder import FederationFolder, write_private
from server.federation.home.keys import launcher_secret
from server.federation.home.logs import open_log

_PROTECTED = ("/flwr.proto.Runtime/AcquireTask",)
_SERVER_APP = "from flwr.superlink.cli import flwr_serverapp; flwr_serverapp()"
_GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class _Started:
    run: int
    process: subprocess.Popen[bytes]
    token: Path


class Launcher:
    """Server apps of one federation, whose SuperLink's inner port is `port`; `environment` is theirs."""

    def __init__(self, folder: FederationFolder, port: int, environment: dict[str, str]) -> None:
        self._folder = folder
        self._address = f"127.0.0.1:{port}"
        self._environment = environment
        self._started: list[_Started] = []
        self._finished: dict[int, float] = {}
        self._client = RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=False,
            root_certificates=authority_file(folder).read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(master_secret=launcher_secret(folder), protected_methods=_PROTECTED),
            ],
        )

    @property
    def running(self) -> int:
        """Server apps that have not ended."""
        return len(self._started)

    def step(self) -> list[int]:
        """Start the oldest server app that waits, once there is no other: two could write to one run's folder.

        Returns runs whose server app was killed since the last step: Flower takes a minute to miss it.
        """
        ended = [started for started in self._started if started.process.poll() is not None]
        for started in ended:
            self._forget(started)
        if not self._started:
            self._start_next()
        return [started.run for started in ended if started.process.returncode < 0]

    def _start_next(self) -> None:
        try:
            answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        except (httpx.HTTPError, ValueError) as error:
            logging.getLogger(__name__).warning("the SuperLink does not answer: %s", error)
            return
        if answer.HasField("task") and answer.token:
            self._start(answer.task.run_id, answer.task.task_id, answer.token)

    def end_finished(self, finished: Collection[int]) -> None:
        """End server apps of runs that finished a while ago: one that computes does not hear that it was stopped."""
        now = time.monotonic()
        for started in self._started:
            if started.run in finished:
                since = self._finished.setdefault(started.run, now)
                if now - since > _GRACE_SECONDS:
                    started.process.terminate()
                if now - since > 2 * _GRACE_SECONDS:
                    started.process.kill()

    def stop(self) -> None:
        """End all server apps; each has time to say so to the SuperLink."""
        for started in self._started:
            started.process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for started in list(self._started):
            try:
                started.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                started.process.kill()
                started.process.wait()
            self._forget(started)
        self._client.close()

    def _start(self, run: int, task: int, token: str) -> None:
        token_file = self._folder.keys / f"task-{task}.token"
        write_private(token_file, token.encode())
        command = [sys.executable, "-c", _SERVER_APP, "--runtime-api-address", self._address]
        command += ["--token-file", str(token_file), "--root-certificates", str(authority_file(self._folder))]
        command += ["--parent-pid", str(os.getpid())]
        with open_log(self._folder.logs / "serverapp.log") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._folder.path,
                start_new_session=True,
            )
        self._started.append(_Started(run, process, token_file))

    def _forget(self, started: _Started) -> None:
        started.token.unlink(missing_ok=True)
        self._started.remove(started)
        self._finished.pop(started.run, None)
