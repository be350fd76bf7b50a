"""A training order: from the check of what it asks to the update, through whatever keeps the device from training."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from device_profiles.errors import DivergedError, ExecutionError, ProflError
from device_profiles.federation import UPDATE_FILE, SentFile, TrainAnswer, TrainOrder
from device_profiles.outputs import beside
from device_profiles.task import Result, diverged
from edge_runtime.device.federation.answers import Answered, Fetch
from edge_runtime.device.federation.child import Child
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.files import fetch_missing, lay_out
from edge_runtime.device.federation.train_command import train_command, usual_seconds
from edge_runtime.device.fleet_api.errors import LinkError
from edge_runtime.device.limits.processes import Outcome

PRESSURE_SECONDS = 20.0
"""A training that was paused for so long under memory pressure is ended with a checkpoint, which frees its memory."""
_CHECKPOINT_ENDING = ".checkpoint"
_USAGE_STATUS = 2
_MEGABYTE = 1 << 20


class _Said(msgspec.Struct):
    """What `profl-edge train --json` prints, as far as answers need it."""

    steps: int
    examples: int
    interrupted: bool
    loss_first: float | None
    loss_last: float | None
    measured_peak_bytes: int | None
    slowed_down: bool | None = None


class TrainJob:
    """Training, from the child's start to the answer.

    While the device may not train, or its memory is scarce, the training waits: paused, or ended with a checkpoint that
    it continues from. It has `seconds` in all.
    """

    def __init__(self, device: Device, order: TrainOrder, *, bytes_down: int, seconds: float) -> None:
        self._device = device
        self._order = order
        self._bytes_down = bytes_down
        self._seconds = seconds
        self._started = time.monotonic()
        self._deadline = self._started + seconds
        self._folder = device.state.task
        self._output = self._folder / UPDATE_FILE
        self._said, self._complaint = self._folder / "report.json", self._folder / "complaint.txt"
        self._child: Child | None = None
        self._pressed_since: float | None = None
        self._waits_for: str | None = None
        self._began = False
        self._usual = usual_seconds(order, device.state.profile(), examples=device.examples)

    @property
    def doing(self) -> str:
        """For people and for the server."""
        if self._waits_for is not None:
            return f"{self._order.work}: waits ({self._waits_for})"
        if self._child is None:
            return f"{self._order.work}: begins"
        passed = time.monotonic() - self._started
        left = "" if self._usual is None or passed > self._usual else f", about {self._usual - passed:.0f} s left"
        return f"trains {self._order.work}, {passed:.0f} s{left}"

    def poll(self) -> Answered | None:
        """Go on; the answer at the end."""
        if self._child is not None and self._child.ended():
            answer = self._ended(self._child)
            if answer is not None:
                return answer
        if time.monotonic() > self._deadline:
            return self.abandon(
                f"not allowed to train until the deadline: {self._waits_for}"
                if self._waits_for is not None
                else f"no answer within {self._seconds:.0f} s"
            )
        refusal = self._device.permission.refusal(training=self._child is not None)
        if self._child is None:
            if refusal is None and self._device.pressure.is_high():
                refusal = "memory is scarce"
            self._wait(refusal)
            if refusal is None:
                return self._begin()
        elif refusal is not None:
            self._wait(refusal)
            self._child.stop()
        else:
            self._watch_pressure(self._child)
        return None

    def stop(self) -> None:
        """End the child with a checkpoint, and wait for that."""
        if self._child is not None:
            self._child.wait_stopped()
            self._hold(None)

    def abandon(self, why: str) -> Answered:
        """End the child at once."""
        outcome = None
        if self._child is not None:
            self._child.kill()
            outcome = self._child.outcome()
            self._hold(None)
        return self._answer(why, outcome, None)

    def _begin(self) -> Answered | None:
        if not self._began:
            self._began = True
            said = self._whole_report()
            if said is not None:  # this client was killed between the training's end and the answer
                return self._answer("ok", None, said)
        budget = self._device.budget()
        if self._order.promise_bytes > budget:
            return self._answer(too_large(self._order.promise_bytes, budget), None, None)
        try:
            settings = self._device.settings
            command = train_command(
                self._order,
                task=self._folder,
                prefix=self._device.state.prefix,
                data=settings.data,
                threads=min(self._order.threads, settings.threads or self._order.threads),
                profile=self._device.state.profile(),
                output=self._output,
            )
            self._hold(Child(command, limit_bytes=budget, said=self._said, complaint=self._complaint))
        except (ProflError, OSError) as error:
            return self._answer(f"cannot be started: {error}", None, None)
        return None

    def _hold(self, child: Child | None) -> None:
        self._child = self._device.use.child = child
        self._pressed_since = None

    def _watch_pressure(self, child: Child) -> None:
        if not self._device.pressure.is_high():
            self._pressed_since = None
            self._wait(None)
            child.go_on()
            return
        now = time.monotonic()
        self._wait("memory is scarce")
        child.pause()
        self._pressed_since = now if self._pressed_since is None else self._pressed_since
        if now - self._pressed_since > PRESSURE_SECONDS:
            child.stop()

    def _wait(self, refusal: str | None) -> None:
        if refusal is not None and self._waits_for is None:
            self._device.journal.say("waits", f"training waits: {refusal}", why=refusal)
        elif refusal is None and self._waits_for is not None:
            self._device.journal.say("continues", "training continues")
        self._waits_for = refusal

    def _ended(self, child: Child) -> Answered | None:
        """The answer of a child that ended; None where it is started again."""
        outcome = child.outcome()
        self._hold(None)
        said = self._whole_report()
        if said is not None and outcome.returncode == 0:
            if said.slowed_down:
                self._device.journal.say("slowed", "training was slow: the processor lowered its clock")
            return self._answer("ok", outcome, said)
        if child.stopping:
            return None
        checkpoint = Path(beside(str(self._output), _CHECKPOINT_ENDING))
        if outcome.returncode == _USAGE_STATUS and checkpoint.exists():
            # Of another release, or of options that have changed since: the training starts anew.
            checkpoint.unlink()
            return None
        return self._answer(_status(outcome, child.last_words()), outcome, None)

    def _whole_report(self) -> _Said | None:
        """What the child said, where it has finished and its update is there."""
        try:
            said = msgspec.json.decode(self._said.read_bytes(), type=_Said)
        except (OSError, msgspec.DecodeError):
            return None
        return said if not said.interrupted and self._output.is_file() else None

    def _answer(self, status: str, outcome: Outcome | None, said: _Said | None) -> Answered:
        update = None
        if said is not None:
            try:
                update = SentFile.of(self._output)
            except OSError as error:
                status, said = f"the update cannot be read: {error.strerror or error}", None
        result = Result(
            client=self._order.client,
            status=status,
            seconds=time.monotonic() - self._started,
            examples=said.examples if said else 0,
            steps=said.steps if said else 0,
            loss_first=said.loss_first if said else None,
            loss_last=said.loss_last if said else None,
            measured_peak_bytes=said.measured_peak_bytes if said else None,
            oom_kills=outcome.oom_kills if outcome else 0,
            limit_kind=outcome.limit_kind if outcome else "none",
            bytes_down=self._bytes_down,
            bytes_up=update.bytes if update else 0,
        )
        return answered(self._device, self._order, result, update)


def answered(device: Device, order: TrainOrder, result: Result, update: SentFile | None = None) -> Answered:
    """The answer to an order."""
    document = TrainAnswer(
        run=order.run,
        attempt=order.attempt,
        result=result,
        update=update,
        transport_peak_bytes=device.peak(),
    )
    what = f"update of {order.work}" if update is not None else f"no update: {result.status}"
    files = {} if update is None else {UPDATE_FILE: device.state.task / UPDATE_FILE}
    return Answered(document=msgspec.json.encode(document), what=what, files=files)


def start_training(
    device: Device, order: TrainOrder, fetch: Fetch, *, seconds: float, again: bool = False
) -> TrainJob | Answered:
    """The job, once its files are there; an answer where the device does not take it. `again`: it was taken before, and
    waits for the permission to train."""
    try:
        refusal = None if again else device.permission.refusal()
        budget = device.budget()
        if refusal is not None:
            raise ExecutionError(f"may not train now: {refusal}")
        if order.promise_bytes > budget:
            raise ExecutionError(too_large(order.promise_bytes, budget))
        bytes_down = fetch_missing(device, order.files, fetch, more_bytes=_work_bytes(order))
        lay_out(device, order.files)
    except LinkError:
        raise
    except ProflError as error:
        return declined(device, order, str(error))
    return TrainJob(device, order, bytes_down=bytes_down, seconds=seconds)


def declined(device: Device, order: TrainOrder, why: str) -> Answered:
    """The answer of a device that does not take an order."""
    return answered(device, order, Result(client=order.client, status=f"declined: {why}", seconds=0.0))


def too_large(promise: int, budget: int) -> str:
    """Why a task cannot be held."""
    return f"the task needs {promise / _MEGABYTE:.1f} MB, this device has {budget / _MEGABYTE:.1f} MB for it now"


def _work_bytes(order: TrainOrder) -> int:
    """Of the disk, for an update and a checkpoint: no more than the weights that they come from, three times."""
    weights = sum(
        sent.bytes for name, sent in order.files.items() if name.endswith(".safetensors") or name in order.weights
    )
    return 3 * weights


def _status(outcome: Outcome, complaint: str) -> str:
    if outcome.oom_kills:
        return "killed at its memory limit"
    if outcome.returncode < 0:
        return f"died by signal {-outcome.returncode}"
    if outcome.returncode == DivergedError.exit_status:
        return diverged(complaint)
    return complaint or f"exit status {outcome.returncode}"
