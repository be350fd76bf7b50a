"""A running federation: keys, certificates, the SuperLink, its devices and server apps, until something ends it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import msgspec

from device_profiles.errors import ExecutionError, ProflError
from server.federation.flower.control import control
from server.federation.flower.launcher import Launcher
from server.federation.home.addresses import certificate_names, listen, moved_note, public_address
from server.federation.home.certificates import make_certificates
from server.federation.home.devices import editing, read_devices, write_devices
from server.federation.home.folder import FederationFolder, Settings
from server.federation.home.keys import control_token, launcher_secret, order_key_file
from server.federation.home.logs import last_line, open_log
from server.federation.membership import reconcile
from server.federation.processes import Running, end, environment, left_over, set_running
from server.federation.restarts import MOST, Restarts

_START_SECONDS = 120.0
_ANSWER_SECONDS = 5.0
"""For one answer of a SuperLink that starts: while its sockets are open, a question to one that ended hangs."""
_POLL_SECONDS = 0.2
_STEP_SECONDS = 1.0


class Observer(Protocol):
    """Told while a federation runs."""

    def ready(self, running: Running) -> None:
        """It answers."""
        ...

    def note(self, line: str) -> None:
        """Something that whoever watches should know."""
        ...

    def tick(self, running: Running) -> None:
        """A second has passed."""
        ...


def run_federation(folder: FederationFolder, settings: Settings, observer: Observer) -> None:
    """Run a federation until an exception ends it, as `stop_signals` raises one; whatever was started is ended.

    Raises UsageError where it cannot start, ExecutionError where its SuperLink does not stay up.
    """
    folder.make()
    held = f"is up already; end it with profl-server federation down {folder.path}"
    with folder.locked("up", wait=False, held=held):
        end(left_over(folder))
        for token in folder.keys.glob("task-*.token"):  # of server apps that were killed with the federation
            token.unlink()
        renewed = make_certificates(folder, certificate_names(settings.hosts))
        for make in (order_key_file, control_token, launcher_secret):
            make(folder)
        if renewed:
            observer.note(f"made a certificate for {', '.join(certificate_names(settings.hosts))}")
        with _sockets(settings) as (devices, inner):
            # A port that was free today is what devices are told, so that it is taken the next time as well.
            port = devices[0].getsockname()[1]
            address = public_address(settings.hosts, port)
            if read_devices(folder).devices and (moved := moved_note(settings.address, address)):
                observer.note(moved)
            settings = msgspec.structs.replace(settings, port=port, address=address)
            folder.keep(settings)
            _Federation(folder, settings, observer, devices, inner).run()


@contextmanager
def _sockets(settings: Settings) -> Iterator[tuple[list[socket.socket], socket.socket]]:
    """Those of devices, and that of the server's own processes: they stay open while a SuperLink is started anew."""
    devices = listen(settings.hosts, settings.port)
    opened = list(devices)
    try:
        opened += listen(("127.0.0.1",), 0)
        yield devices, opened[-1]
    finally:
        for one in opened:
            one.close()


class _Ended(ExecutionError):
    """A SuperLink that ended before it answered."""


class _Federation:
    """One that is up: its SuperLink is started anew when it ends, its server apps are started when runs come."""

    def __init__(
        self,
        folder: FederationFolder,
        settings: Settings,
        observer: Observer,
        devices: list[socket.socket],
        inner: socket.socket,
    ) -> None:
        self._folder = folder
        self._observer = observer
        self._devices = devices
        self._inner = inner
        self._environment = environment(folder)
        port, self._inner_port = devices[0].getsockname()[1], inner.getsockname()[1]
        address = public_address(settings.hosts, port)
        self._running = Running.this(port=port, inner_port=self._inner_port, address=address)
        self._superlink: subprocess.Popen[bytes] | None = None
        self._restarts = Restarts()

    def run(self) -> None:
        """Serve until an exception comes."""
        launcher = Launcher(self._folder, self._inner_port, self._environment)
        try:
            self._start()
            self._end_orphans()
            set_running(self._folder, self._running)
            self._observer.ready(self._running)
            while True:
                while self._superlink is None or self._superlink.poll() is not None:
                    self._restart()
                self._end_killed(launcher.step())
                self._end_finished(launcher)
                self._observer.tick(self._running)
                time.sleep(_STEP_SECONDS)
        finally:
            launcher.stop()
            self._stop()

    def _start(self) -> None:
        """Start the SuperLink and wait until it answers; its devices are then those of `devices.json`."""
        sockets = [*self._devices, self._inner]
        numbers = ",".join(str(one.fileno()) for one in self._devices)
        command = [sys.executable, "-m", "server.federation.flower.superlink"]
        command += [str(self._folder.path), numbers, str(self._inner.fileno())]
        with open_log(self._folder.logs / "superlink.out") as log:
            self._superlink = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                pass_fds=[one.fileno() for one in sockets],
                start_new_session=True,
            )
        self._restarts.started()
        self._wait(self._register)
        self._restarts.answers()

    def _register(self) -> None:
        superlinks = control(self._folder, self._inner_port, timeout=_ANSWER_SECONDS)
        with superlinks as superlink, editing(self._folder) as devices:
            write_devices(self._folder, reconcile(devices, superlink))

    def _end_orphans(self) -> None:
        """Runs whose server app ended with the federation before: they are resumed as new ones."""
        with control(self._folder, self._inner_port) as superlink:
            for run in superlink.runs():
                superlink.stop(run.run_id)

    def _end_killed(self, runs: Sequence[int]) -> None:
        """Have the SuperLink know that runs have ended whose server apps were killed."""
        for run in runs:
            self._observer.note(f"the server app of run {run} was killed; continue the run with --resume")
            with suppress(ExecutionError), control(self._folder, self._inner_port) as superlink:
                superlink.stop(run)

    def _end_finished(self, launcher: Launcher) -> None:
        if launcher.running:
            with suppress(ExecutionError), control(self._folder, self._inner_port) as superlink:
                launcher.end_finished({run.run_id for run in superlink.runs() if run.is_finished})

    def _wait(self, ask: Callable[[], None]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return ask()
            except ExecutionError as error:
                problem: ProflError = error
            if self._superlink is None or self._superlink.poll() is not None:
                raise _Ended(f"the SuperLink ended: {self._said()}")
            if time.monotonic() > deadline:
                raise ExecutionError(f"the SuperLink does not answer: {problem}")
            time.sleep(_POLL_SECONDS)

    def _said(self) -> str:
        out, log = self._folder.logs / "superlink.out", self._folder.logs / "superlink.log"
        return f"{last_line(out) or last_line(log) or 'it said nothing'}; see {out} and {log}"

    def _restart(self) -> None:
        if self._restarts.given_up():
            raise ExecutionError(f"the SuperLink ended {MOST + 1} times in a row soon after its start: {self._said()}")
        self._observer.note("the SuperLink ended and is started again, with the same devices and state")
        with suppress(_Ended):  # again, before it answered: that counts as another time
            self._start()

    def _stop(self) -> None:
        if self._superlink is not None:
            self._superlink.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._superlink.wait(10.0)
            self._superlink.kill()
            self._superlink.wait()
        end(left_over(self._folder))
        self._folder.running_file.unlink(missing_ok=True)
