"""The client's loop: it asks for messages, answers them, and goes on where it was killed."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from device_profiles.errors import FormatError, ProflError
from device_profiles.federation import QUERY_DEVICE, QUERY_PROFILE, TRAIN_TASK, DeviceQuestion, TrainOrder
from edge_runtime.device.federation.answers import Answered, Job
from edge_runtime.device.federation.asking import Asking
from edge_runtime.device.federation.courier import Courier, fetch_from
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.handling import answer_question, begin, check_signature
from edge_runtime.device.federation.orders import read_order
from edge_runtime.device.federation.profiling import no_profile
from edge_runtime.device.federation.state import KeptAnswer, Pending
from edge_runtime.device.federation.training import declined
from edge_runtime.device.fleet_api.errors import LinkDownError, LinkError, MessageGoneError, RunEndedError
from edge_runtime.device.fleet_api.incoming import Incoming

_BESIDE_SECONDS = 5.0
"""For an answer beside a training, which is not watched meanwhile."""
_POLL_SECONDS = 0.25


class Client:
    """One device of one federation.

    Args:
        receiver: whom answers go to, for the log.
        once: end when a training order was answered.
        ask_within: most seconds between two questions for messages; None leaves it to `Asking`.
    """

    def __init__(
        self, device: Device, courier: Courier, *, receiver: str, once: bool = False, ask_within: float | None = None
    ) -> None:
        self._device = device
        self._state = device.state
        self._journal = device.journal
        self._courier = courier
        self._receiver = receiver
        self._once = once
        self._asking = Asking(ask_within)
        self._job: Job | None = None
        self._pending: Pending | None = None
        self._answered_training = False

    def run(self, check: Callable[[], None]) -> None:
        """Serve until `check`, which is called all the time, raises something; its child has ended then. Raises
        LinkError where the server is no use."""
        try:
            self._courier.activate()
            self._journal.say("joined", f"joined {self._receiver} as {self._device.settings.name}")
            self._recover()
            self._serve(check)
        finally:
            if self._job is not None:
                self._job.stop()
            self._courier.deactivate()
            self._courier.close()

    def _serve(self, check: Callable[[], None]) -> None:
        asking = self._asking
        while not (self._once and self._answered_training and self._job is None):
            check()
            if self._courier.lost is not None:
                raise self._courier.lost
            if asking.due:
                asking.news() if self._pull() else asking.asked(self._courier.answered_in)
            if self._job is not None:
                answer = self._job.poll()
                self._journal.progress(self._job.doing)
                if answer is not None:
                    self._finish(answer)
                    asking.news()
            else:
                self._device.permission.refusal()  # it compares the load with that of the last time
            time.sleep(_POLL_SECONDS)

    def _pull(self) -> bool:
        """Take a message; whether there was one. Without work it waits for as long as the link is down."""
        try:
            incoming = self._courier.pull(None if self._job is None else time.monotonic())
        except LinkDownError:
            return False
        except FormatError as error:
            self._journal.say("refused", f"a message that cannot be read: {error}")
            return False
        if incoming is None:
            return False
        try:
            self._take(incoming)
        except (MessageGoneError, RunEndedError) as error:
            self._journal.say("gone", f"{incoming.type}: {error}")
        except LinkDownError as error:
            if self._job is None:
                raise
            self._journal.say("down", f"{incoming.type} is not answered: {error}")
        return True

    def _take(self, incoming: Incoming) -> None:
        if incoming.type == QUERY_DEVICE or self._job is not None:
            self._answer_beside(incoming)
            return
        pending = Pending(incoming=incoming, received=time.time())
        try:
            self._state.begin(pending)
            self._start(pending)
        except OSError as error:
            self._refuse_work(incoming, f"declined: {error.strerror or error}")

    def _recover(self) -> None:
        """Go on with what a killed client was at."""
        pending = self._state.pending()
        if pending is None:
            self._clear()  # of a task that was answered just before
            return
        kind = pending.incoming.type
        try:
            if pending.incoming.expired:
                raise MessageGoneError("it has expired meanwhile")
            self._journal.say("continues", f"continues with {kind}, which was taken before")
            self._pending = pending
            answer = self._state.answer()
            if answer is None:
                self._start(pending)
            else:
                self._send_kept(answer)
        except (MessageGoneError, RunEndedError) as error:
            self._journal.say("gone", f"{kind}: {error}")
            self._clear()
        except OSError as error:
            self._refuse_work(pending.incoming, f"declined: {error.strerror or error}")

    def _start(self, pending: Pending) -> None:
        incoming = pending.incoming
        again = pending.order is not None
        self._pending = pending
        try:
            if pending.order is None:
                raw, signature = self._courier.order(incoming)
                pending = msgspec.structs.replace(pending, order=raw, signature=signature)
                self._keep(pending)
            assert pending.order is not None
            job = begin(
                self._device,
                incoming.type,
                pending.order,
                pending.signature,
                fetch_from(self._courier, incoming),
                seconds=incoming.seconds_left,
                spent=max(0.0, time.time() - pending.received),
                again=again,
            )
        except (MessageGoneError, RunEndedError):
            self._clear()
            raise
        except FormatError as error:
            self._refuse(incoming, error)
            return
        if isinstance(job, Answered):
            self._finish(job)
            return
        self._job = job
        self._confirm(pending)
        self._journal.say("work", f"{job.doing}", kind=incoming.type)

    def _confirm(self, pending: Pending) -> None:
        if not pending.confirmed:
            self._courier.confirm(pending.incoming)
            self._keep(msgspec.structs.replace(pending, confirmed=True))

    def _keep(self, pending: Pending) -> None:
        self._pending = pending
        self._state.keep_pending(pending)

    def _finish(self, answer: Answered) -> None:
        """Answer what is pending; after a kill the same answer is sent again."""
        pending, self._job = self._pending, None
        assert pending is not None
        kept = KeptAnswer(
            document=answer.document,
            created=time.time(),
            seconds=max(0.0, time.time() - pending.received),
            what=answer.what,
            files=tuple(answer.files),
        )
        try:
            self._state.keep_answer(kept)
        except OSError as error:
            self._journal.say("disk", f"the answer is not kept for another start: {error.strerror or error}")
        try:
            self._send_kept(kept)
        except (MessageGoneError, RunEndedError) as error:
            self._journal.say("gone", f"{pending.incoming.type}: {error}")
            self._clear()

    def _send_kept(self, kept: KeptAnswer) -> None:
        assert self._pending is not None
        incoming = self._pending.incoming
        if not self._pending.confirmed:
            self._courier.confirm(incoming)
        files = {name: self._state.task / name for name in kept.files}
        count = len(kept.document) + sum(path.stat().st_size for path in files.values())
        self._courier.reply(incoming, kept.document, files, seconds=kept.seconds, created_at=kept.created)
        self._journal.sent(kept.what, count, self._receiver, kind=incoming.type)
        self._answered_training = self._answered_training or incoming.type == TRAIN_TASK
        self._clear()

    def _clear(self) -> None:
        self._pending = self._job = None
        self._state.finish()

    def _answer_beside(self, incoming: Incoming) -> None:
        """Answer at once, beside a training where there is one; nothing of it is kept for another start."""
        deadline = self._soon()
        try:
            raw, signature = self._courier.order(incoming, deadline)
            check_signature(self._device, raw, signature)
            if incoming.type == QUERY_DEVICE:
                read_order(raw, DeviceQuestion)
                busy = self._device.permission.refusal() if self._job is None else self._job.doing
                answer = answer_question(self._device, busy=busy, took=self._state.took())
            elif self._replaces(incoming, raw):
                assert self._job is not None
                self._finish(self._job.abandon("a newer task of the run has come"))
                self._take(incoming)
                return
            else:
                answer = self._declined(incoming, raw, "declined: it is at another task")
        except LinkError:
            raise
        except ProflError as error:
            self._refuse(incoming, error)
            return
        self._reply_at_once(incoming, answer)

    def _soon(self) -> float | None:
        """Until when to wait for the link: for as long as it takes, but beside a training only for a moment."""
        return None if self._job is None else time.monotonic() + _BESIDE_SECONDS

    def _replaces(self, incoming: Incoming, raw: bytes) -> bool:
        """Whether the server has given up the training that runs, for a newer task of the same run."""
        if incoming.type != TRAIN_TASK or self._pending is None or self._pending.order is None:
            return False
        if self._pending.incoming.type != TRAIN_TASK:
            return False
        old, new = (read_order(document, TrainOrder) for document in (self._pending.order, raw))
        return new.run == old.run and new.attempt > old.attempt

    def _declined(self, incoming: Incoming, raw: bytes, why: str) -> Answered:
        if incoming.type == TRAIN_TASK:
            return declined(self._device, read_order(raw, TrainOrder), why.removeprefix("declined: "))
        if incoming.type == QUERY_PROFILE:
            return no_profile(why)
        raise FormatError(f"the server's order: '{ascii(incoming.type[:80])[1:-1]}' is no kind that this release knows")

    def _refuse_work(self, incoming: Incoming, why: str) -> None:
        """Decline what the disk has no room for; nothing half-written stays."""
        self._job = None
        try:
            raw, _ = self._courier.order(incoming)
            self._reply_at_once(incoming, self._declined(incoming, raw, why))
        except FormatError as error:
            self._refuse(incoming, error)
        self._clear()

    def _reply_at_once(self, incoming: Incoming, answer: Answered) -> None:
        self._courier.confirm(incoming, self._soon())
        self._courier.reply(incoming, answer.document, answer.files, seconds=0.0, deadline=self._soon())
        self._journal.sent(answer.what, len(answer.document), self._receiver, kind=incoming.type)
        self._answered_training = self._answered_training or incoming.type == TRAIN_TASK

    def _refuse(self, incoming: Incoming, error: ProflError) -> None:
        self._journal.say("refused", f"{incoming.type}: {error}")
        self._courier.refuse(incoming, str(error), self._soon())
        self._journal.sent("why a message was refused", len(str(error).encode()), self._receiver, kind=incoming.type)
        if self._pending is not None and self._pending.incoming == incoming:
            self._clear()
