"""From what a device answers to an order to an event of the rounds; whatever of it cannot be read is a reason."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

from device_profiles.errors import FormatError
from device_profiles.federation import Document, SentFile, TrainAnswer, read_document
from device_profiles.task import Result, Task
from server.averaging.aggregation import ReceivedUpdate
from server.engines.flower.arriving import Reply
from server.fleet.structure import Structure
from server.judging.strangers import most_update_bytes, plain, read_update
from server.rounds.seam import Failed, Updated

T = TypeVar("T", bound=Document)
_MOST_BYTES = 1 << 60


def failed(task: Task, status: str, *, seconds: float = 0.0) -> Failed:
    """A task that will not be done."""
    return Failed(task=task.key, result=Result(client=task.client, status=status, seconds=seconds))


def stated_update(document: bytes, task: Task, run: str, structure: Structure) -> SentFile | None:
    """The update that an answer says that it brings. Raises FormatError where no update to this task is like that."""
    said = _answer(document, task, run)
    most = most_update_bytes(structure.tensors(task.work))
    if said.update is not None and said.update.bytes > most:
        raise FormatError(f"unreadable answer: its update has {said.update.bytes} bytes, where {most} are the most")
    return said.update


def read_reply(
    task: Task, reply: Reply, *, run: str, structure: Structure, seconds: float, bytes_down: int
) -> Updated | Failed:
    """The event that `reply` is; its update is read from the reply's file.

    `seconds` from the order to the answer are the server's own, and not what the device says. `bytes_down` are those of
    all of the task's files; a device that had some of them says that it fetched fewer.
    """
    update = None
    said = None
    try:
        if reply.error is not None:
            raise FormatError(reply.error)
        said = _answer(reply.document, task, run)
        status = plain(said.result.status)
        if reply.file is not None:
            update = _update(reply.file, task, structure)
            status = "ok"
        elif status == "ok":
            status = "says that it is done, and sent no update"
    except FormatError as error:
        status = str(error)
    result = Result(
        client=task.client,
        status=status,
        seconds=seconds,
        examples=update.metadata.examples if update else 0,
        steps=update.metadata.steps if update else 0,
        loss_first=update.metadata.loss_first if update else None,
        loss_last=update.metadata.loss_last if update else None,
        measured_peak_bytes=_bounded(said.result.measured_peak_bytes) if said else None,
        oom_kills=_bounded(said.result.oom_kills) or 0 if said else 0,
        limit_kind=plain(said.result.limit_kind) if said else "none",
        bytes_down=_fetched(said, bytes_down),
        bytes_up=reply.file.stat().st_size if reply.file and update else 0,
    )
    if update is None:
        return Failed(task=task.key, result=result)
    return Updated(task=task.key, result=result, update=update)


def read_answer(raw: bytes, kind: type[T]) -> T:
    """The document of an answer; raises FormatError, in plain characters whatever it holds."""
    try:
        return read_document(raw, kind, "unreadable answer")
    except FormatError as error:
        raise FormatError(plain(str(error))) from None


def _answer(raw: bytes, task: Task, run: str) -> TrainAnswer:
    answer = read_answer(raw, TrainAnswer)
    if (answer.run, answer.attempt) != (run, task.attempt):
        raise FormatError("answered to another task")
    return answer


def _update(path: Path, task: Task, structure: Structure) -> ReceivedUpdate:
    try:
        return read_update(task.client, path, structure.tensors(task.work))
    except FormatError as error:
        raise FormatError(f"unreadable answer: {error.reason}") from None


def _fetched(said: TrainAnswer | None, most: int) -> int:
    count = None if said is None else _bounded(said.result.bytes_down)
    return most if count is None else min(count, most)


def _bounded(number: int | None) -> int | None:
    """A number of a stranger, None where it cannot be."""
    return number if number is not None and 0 <= number <= _MOST_BYTES and math.isfinite(number) else None
