"""Messages of a federation as Flower carries them (`device_profiles.federation`): what is sent, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from device_profiles.errors import ExecutionError
from device_profiles.federation import FILE_TYPE, FILES, JSON, ORDER, SIGNATURE
from server.engines.flower.arriving import Arriving, Reply, Wanted
from server.engines.flower.post import Grid
from server.engines.flower.signing import OrderKey
from server.judging.strangers import plain

_TRIALS = 3
"""To send a letter: a SuperLink that is started again in between, or takes the same file of another letter, forgets
what it has of this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """What goes to one node.

    Attributes:
        kind: a message type of `device_profiles.federation`.
        document: JSON, of which the signature is made.
        files: shared by all letters that carry the same ones, so that Flower stores them once.
        seconds: after which nobody waits for an answer any more.
    """

    node: int
    kind: str
    document: bytes
    seconds: float
    files: ArrayRecord | None = None
    group: str = ""


class Mail:
    """Sends letters and fetches the answers to them; may be used by several threads.

    Only a SuperLink that cannot be reached is an exception (ExecutionError): whatever else goes wrong is about one
    letter, and said as its reply.
    """

    def __init__(self, grid: Grid, key: OrderKey | None) -> None:
        self._grid = grid
        self._key = key

    def nodes(self) -> list[int]:
        """Nodes that are connected."""
        try:
            return list(self._grid.get_node_ids())
        except httpx.HTTPError as error:  # a run that was stopped is refused
            raise _unreachable(error) from None

    def send(self, letter: Letter) -> str | Reply:
        """The id of what was sent, or why it was not."""
        try:
            sent = self._pushed(letter)
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        except Exception as error:  # one client must not end the round of all others
            return Reply(sender=letter.node, error=f"could not be sent: {_said(error)}")
        if len(sent) != 1 or not sent[0]:
            return Reply(sender=letter.node, error="could not be sent: the SuperLink did not take it")
        return sent[0]

    def _pushed(self, letter: Letter) -> list[str]:
        records: dict[str, Any] = {ORDER: ConfigRecord(self._signed(letter.document))}
        if letter.files is not None:
            records[FILES] = letter.files
        trials = 0
        while True:
            content = RecordDict(records)
            message = Message(content, letter.node, letter.kind, ttl=letter.seconds, group_id=letter.group)
            try:
                return list(self._grid.push_messages([message]))
            except ObjectPushError:
                trials += 1
                if trials == _TRIALS:
                    raise

    def answer(self, message_id: str, node: int, wanted: Wanted | None = None) -> Arriving:
        """The answer to what was sent to `node`, which is to be looked after (`fetch`)."""
        return Arriving(self._grid, message_id, node, wanted)

    def fetch(self, answer: Arriving, node: int) -> Reply | None:
        """What has come of an answer of `node`, None where it is not whole yet."""
        try:
            return answer.look()
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        except ExecutionError:
            raise
        except Exception as error:  # records of any kind, by a stranger
            return Reply(sender=node, error=f"unreadable answer: {_said(error)}")

    def _signed(self, document: bytes) -> dict[str, Any]:
        return {JSON: document} | ({} if self._key is None else {SIGNATURE: self._key.sign(document)})


def file_array(content: bytes) -> Array:
    """The bytes of a file as they travel."""
    return Array("uint8", (len(content),), FILE_TYPE, content)


def _said(error: Exception) -> str:
    return plain(str(error) or type(error).__name__)


def _unreachable(error: Exception) -> ExecutionError:
    return ExecutionError(
        f"the SuperLink does not answer: {_said(error)}", remedy="start it, then continue with --resume"
    )
