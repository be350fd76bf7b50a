"""Clients of a federation as processes, orders for them, and the system that they look at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.federation import BUNDLE_FOLDER, WEIGHTS_FOLDER, SentFile, TrainOrder
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.federation.start import Start
from tests.support.mailbox import Mailbox

_ROOT = Path(__file__).parents[2]
MEGABYTE = 1 << 20
_MARK = "PROFL_TEST_CLIENT"


@dataclass
class RunningClient:
    """One device: its folder, its mailbox, and the process that serves it now."""

    folder: Path
    data: str = "digits"
    limit_mb: int = 160
    more: Mapping[str, Any] = field(default_factory=dict)
    root: Path = Path("/")
    once: bool = False
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.state = self.folder / "state"
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.mailbox = Mailbox(self.folder / "mail")

    def start(self) -> subprocess.Popen[str]:
        """Start the process; its log goes to a file."""
        settings = Settings(
            name="bench", address="localhost:1", data=self.data, limit_bytes=self.limit_mb * MEGABYTE, **self.more
        )
        start = Start(
            settings=settings, state=str(self.state), release="1", as_json=True, root=str(self.root), once=self.once
        )
        path = self.folder / "start.json"
        path.write_bytes(msgspec.json.encode(start))
        with (self.folder / "log").open("a") as log, (self.folder / "errors").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.mailbox", str(path), str(self.mailbox.folder)],
                cwd=_ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(_ROOT),
                    "MALLOC_ARENA_MAX": "1",
                    "PYTHONFAULTHANDLER": "1",
                    _MARK: str(self.folder),
                },
                stdout=log,
                stderr=errors,
                text=True,
            )
        return self.process

    def end(self, number: int = signal.SIGTERM, *, seconds: float = 60.0) -> int:
        """Send a signal, and wait for the end; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # which says where it is
            self.process.wait()
            raise AssertionError(self.errors) from None

    @property
    def errors(self) -> str:
        """What the process that was started last complained of."""
        return (self.folder / "errors").read_text()

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Lines of the log, of one kind of event."""
        path = self.folder / "log"
        lines = []
        for line in path.read_text().splitlines() if path.exists() else []:
            with suppress(ValueError):  # the last line of a client that was killed
                lines.append(json.loads(line))
        return [line for line in lines if event in (None, line["event"])]

    def wait(self, condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
        """Wait until a condition holds while the process runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process is not None and self.process.poll() is None, self.errors
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def processes(self) -> list[int]:
        """The client and all that it started, so far as they run now."""
        found = []
        for entry in os.scandir("/proc"):
            with suppress(OSError):
                if entry.name.isdigit():
                    environment = Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0")
                    if os.fsencode(f"{_MARK}={self.folder}") in environment and not _is_zombie(int(entry.name)):
                        found.append(int(entry.name))
        return found

    def children(self) -> list[int]:
        """What the client started, so far as it runs now."""
        assert self.process is not None
        return [process for process in self.processes() if process != self.process.pid]


def bundle_files(bundle: Path) -> dict[str, Path]:
    """The files of a bundle under their names in an order; its weights also as those that a round starts from."""
    files = {
        BUNDLE_FOLDER + path.relative_to(bundle).as_posix(): path
        for path in sorted(bundle.rglob("*"))
        if path.is_file()
    }
    return {**files, f"{WEIGHTS_FOLDER}all": bundle / "weights" / "initial.safetensors"}


def sent_files(files: Mapping[str, Path]) -> dict[str, SentFile]:
    """What an order says of them."""
    return {name: SentFile.of(path) for name, path in files.items()}


def train_order(files: Mapping[str, Path], **changed: Any) -> TrainOrder:
    """An order to train the first block, one epoch of the data unless something else is said."""
    values: dict[str, Any] = {
        "run": "run",
        "client": "bench",
        "attempt": 0,
        "work": "grow-units0-0",
        "files": sent_files(files),
        "weights": (f"{WEIGHTS_FOLDER}all",),
        "base_version": "base",
        "learning_rate": 0.02,
        "seed": 3,
        "promise_bytes": 40 * MEGABYTE,
        "epochs": None if "steps" in changed else 1,
    }
    return TrainOrder(**{**values, **changed})


def memory_of(process: int) -> dict[str, int]:
    """VmRSS and VmHWM of a process in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(("VmRSS", "VmHWM"))}


def state_of(process: int) -> str:
    """One letter: R and S run, T is stopped, Z has ended; nothing where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _is_zombie(process: int) -> bool:
    return state_of(process) in ("Z", "")
