"""What the engine needs of a run's connection to its SuperLink, and the one that Flower gives to a server app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid as FlowerGrid
from flwr.superlink.grid.http_grid import HttpGrid

from device_profiles.errors import FormatError, UsageError


class Gone(FormatError):
    """The SuperLink does not have the rest of an answer, and will not get it."""


class Listed(NamedTuple):
    """An answer that a device has begun to send: the name of its first object, and who it says that it is from."""

    object_id: str
    sender: int


class Grid(Protocol):
    """A run's connection to its SuperLink; may be used by several threads."""

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are connected."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Store messages for their nodes; an id for each, or nothing in its place."""

    def pull_answer(self, message_id: str) -> Listed | None:
        """The answer to a message, None where there is none. It is told once."""

    def pull_object(self, object_id: str) -> bytes | None:
        """An object of an answer, None where it has not arrived yet. Raises Gone."""

    def confirm(self, object_id: str) -> None:
        """Have the SuperLink forget an answer, which the name of its first object says."""


class RuntimeGrid:
    """Flower's own grid, with answers that are fetched object by object.

    `HttpGrid.pull_messages` holds a whole answer in memory, and waits for objects that have not arrived: as long as a
    slow device needs to send them, and for minutes where it has gone away.
    """

    def __init__(self, grid: FlowerGrid) -> None:
        """Raises UsageError for the grid of a simulation."""
        if not isinstance(grid, HttpGrid):
            raise UsageError(
                f"--engine flower: a {type(grid).__name__} is no connection to a SuperLink",
                remedy="run the app on a SuperLink; profl-server run --engine simulation simulates clients",
            )
        self._grid = grid

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are connected."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Store messages for their nodes."""
        return self._grid.push_messages(messages)

    def pull_answer(self, message_id: str) -> Listed | None:
        """The answer to a message, None where there is none."""
        pulled = self._grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=[message_id]))
        for message in pulled.messages_list:
            said = message.metadata
            if said.reply_to_message_id == message_id:
                return Listed(said.message_id, said.src_node_id)
        return None

    def pull_object(self, object_id: str) -> bytes | None:
        """An object of an answer, None where it has not arrived yet."""
        request = PullObjectRequest(node=self._grid.node, run_id=self._grid.run.run_id, object_id=object_id)
        pulled = self._grid._runtime_client.PullObject(request)
        if not pulled.object_found:
            raise Gone("the SuperLink does not have the rest of it")
        return pulled.object_content if pulled.object_available else None

    def confirm(self, object_id: str) -> None:
        """Have the SuperLink forget an answer."""
        self._grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=object_id
            )
        )
