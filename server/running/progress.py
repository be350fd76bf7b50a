"""Progress of a run on standard error: a live line on a terminal, a line a round elsewhere."""

from __future__ import annotations

import sys
from typing import Protocol

from device_profiles.task import Result
from server.methods.method import Stage
from server.rounds.observer import Observer
from server.rounds.records import RoundRecord


class Stream(Protocol):
    """What lines are written to: a file, or what passes them on."""

    def write(self, text: str, /) -> object:
        """Take a text."""

    def flush(self) -> object:
        """Let nothing wait."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""


class TerminalProgress(Observer):
    """Step, round, clients done, loss, accuracy."""

    def __init__(self, stream: Stream | None = None) -> None:
        self._stream: Stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._where = ""
        self._halvings = 0

    def note(self, text: str) -> None:
        """A line of its own."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def stage_started(self, stage: Stage, rounds: int, clients: int) -> None:
        """Announce a stage."""
        self._where, self._halvings = stage.title, 0
        self.note(f"{self._where}: {clients} clients hold its promise, at most {rounds} rounds")

    def client_done(self, result: Result, done: int, clients: int) -> None:
        """Redraw the live line; failures are always told."""
        if result.status != "ok":
            self.note(f"  {result.client}: {result.status}")
        if self._live:
            loss = "" if result.loss_last is None else f", loss {result.loss_last:.3f}"
            print(f"\r\x1b[K{self._where}: {done}/{clients} clients{loss}", end="", file=self._stream, flush=True)

    def round_done(self, record: RoundRecord) -> None:
        """One line with the round's numbers."""
        movement = "" if record.effective_movement is None else f"  movement {record.effective_movement:.3f}"
        loss = "-" if record.loss is None else f"{record.loss:.3f}"
        judged = "accuracy -" if record.accuracy is None else f"accuracy {record.accuracy:.4f}"
        if record.accuracy is None and record.test_loss is not None:  # compared with numbers
            judged = f"test loss {record.test_loss:.4f}"
        self.note(
            f"{self._where} round {record.round_of_stage:>3}  clients {sum(r.status == 'ok' for r in record.clients)}"
            f"/{len(record.clients)}  loss {loss}  {judged}{movement}  {record.seconds:.1f} s"
        )
        for client, share in record.stopped_early.items():
            self.note(f"  {client}: stopped early after {share:.0%} of its work")
        for client, what in record.cut.items():
            self.note(f"  {client}: {what}")
        for attempt, reasons in enumerate(record.rejected_before, 1):
            for client, reason in reasons.items():
                self.note(f"  {client}: update rejected in attempt {attempt}: {reason}")
        for client, reason in record.rejected.items():
            self.note(f"  {client}: update rejected: {reason}")
        if record.rate_halvings > self._halvings:
            self._halvings = record.rate_halvings
            part = f"1/{2**record.rate_halvings}"
            self.note(
                f"  clients diverged: the learning rate is {part} of what it was set to, to the end of {self._where}"
            )
        if record.froze_because is not None:
            self.note(f"{self._where}: ended after {record.round_of_stage} rounds ({record.froze_because})")

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=self._stream)
