"""How answers are fetched through flwr's own client: it is no public interface, and shows here when it changes."""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flwr", reason="the engine speaks through Flower")

from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, Message, Metadata, PullObjectRequest
from flwr.proto.message_pb2 import PullObjectResponse as Pulled
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid.http_grid import HttpGrid

from device_profiles.errors import UsageError
from server.engines.flower.post import Gone, Listed, RuntimeGrid


class Client:
    """In the place of flwr's `RuntimeHttpClient`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.messages: list[Message] = []
        self.object = Pulled(object_found=True, object_available=True, object_content=b"content")

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:
        self.asked.append(request)
        return PullAppMessagesResponse(messages_list=self.messages)

    def PullObject(self, request: PullObjectRequest) -> Pulled:
        self.asked.append(request)
        return self.object

    def ConfirmMessageReceived(self, request: ConfirmMessageReceivedRequest) -> None:
        self.asked.append(request)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def grid(client: Client, monkeypatch: pytest.MonkeyPatch) -> RuntimeGrid:
    flower = HttpGrid("127.0.0.1:1", insecure=True, token="token")
    monkeypatch.setattr(flower, "_client", client)
    monkeypatch.setattr(HttpGrid, "run", SimpleNamespace(run_id=5))
    return RuntimeGrid(flower)


def test_flwr_is_the_one_whose_client_this_is() -> None:
    assert version("flwr") == "1.41.0"
    assert isinstance(HttpGrid._runtime_client, property) and "run_id" in Run.__dataclass_fields__
    for name in ("PullMessages", "PullObject", "ConfirmMessageReceived"):
        assert callable(getattr(RuntimeHttpClient, name))


def test_an_answer_is_known_by_what_it_answers(grid: RuntimeGrid, client: Client) -> None:
    assert grid.pull_answer("mine") is None
    for number, answered in enumerate(("", "other", "mine")):
        said = Metadata(message_id=f"m{number}", src_node_id=1 << 63 | number, reply_to_message_id=answered)
        client.messages.append(Message(metadata=said))
    assert grid.pull_answer("mine") == Listed("m2", 1 << 63 | 2)
    assert list(client.asked[-1].message_ids) == ["mine"]


def test_objects_are_there_on_their_way_or_gone(grid: RuntimeGrid, client: Client) -> None:
    assert grid.pull_object("a") == b"content"
    assert (client.asked[-1].run_id, client.asked[-1].object_id, client.asked[-1].node.node_id) == (5, "a", 1)
    client.object = Pulled(object_found=True)
    assert grid.pull_object("a") is None
    client.object = Pulled()
    with pytest.raises(Gone):
        grid.pull_object("a")
    grid.confirm("a")
    assert (client.asked[-1].run_id, client.asked[-1].message_object_id) == (5, "a")


def test_the_grid_of_a_simulation_is_refused() -> None:
    with pytest.raises(UsageError, match="no connection to a SuperLink"):
        RuntimeGrid(SimpleNamespace())  # type: ignore[arg-type]
