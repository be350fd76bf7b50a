"""The Control API of the federation's SuperLink: devices, runs and their logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from device_profiles.errors import ExecutionError
from server.federation.home.certificates import authority_file
from server.federation.home.folder import FederationFolder
from server.federation.home.keys import control_token

if TYPE_CHECKING:
    from flwr.proto.run_pb2 import RunStatus
    from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Node:
    """A device as the SuperLink has it.

    `online_until` is when it counts as gone if it says nothing more, `online_since` when it last connected; seconds of
    the epoch, None where it never did.
    """

    node_id: int
    public_key: str
    status: str
    online_since: float | None
    online_until: float | None
    heartbeat_seconds: float


@dataclass(frozen=True)
class FlowerRun:
    """A run as the SuperLink has it; `status` is `pending`, `starting`, `running` or `finished:` and how it ended."""

    run_id: int
    status: str
    details: str

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status.startswith("finished")

    @property
    def succeeded(self) -> bool:
        """Whether its server app came to its end."""
        return self.status == "finished:completed"


class _Token:
    """Shows the folder's token with every request."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers["authorization"] = self._header
        return call_next(context)


class Control:
    """What the owner of a federation may do; every call raises ExecutionError where the SuperLink refuses it."""

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    def nodes(self) -> list[Node]:
        """Every device that was registered, without those that were removed."""
        with _in_one_line("list its devices"):
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            Node(
                node_id=node.node_id,
                public_key=node.public_key.decode(errors="replace"),
                status=node.status,
                online_since=_seconds(node.last_activated_at),
                online_until=node.online_until if node.HasField("online_until") else None,
                heartbeat_seconds=node.heartbeat_interval,
            )
            for node in found
            if node.status != "unregistered"
        ]

    def known(self) -> dict[str, int]:
        """Numbers of the registered devices, by public key."""
        return {node.public_key: node.node_id for node in self.nodes()}

    def register(self, public_key: str, name: str) -> int:
        """Let the owner of a key in; Flower's number of it."""
        with _in_one_line(f"register {name}"):
            return self._client.RegisterNode(RegisterNodeRequest(public_key=public_key.encode(), name=name)).node_id

    def unregister(self, node_id: int) -> None:
        """Keep a device out from now on."""
        with _in_one_line(f"remove node {node_id}"):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start(self, app: bytes, config: dict[str, Scalar]) -> int:
        """Start a run of an app, as Flower packs it; its number."""
        from hashlib import sha256

        request = StartRunRequest(
            fab=fab_to_proto(Fab(sha256(app).hexdigest(), app, {})), override_config=user_config_to_proto(config)
        )
        with _in_one_line("start the run"):
            return self._client.StartRun(request).run_id

    def stop(self, run_id: int) -> None:
        """Stop a run; nothing happens where it has ended."""
        if not self.run(run_id).is_finished:
            with _in_one_line(f"stop run {run_id}"):
                self._client.StopRun(StopRunRequest(run_id=run_id))

    def run(self, run_id: int) -> FlowerRun:
        """What became of a run. Raises ExecutionError where the SuperLink does not know it."""
        found = self._runs(ListRunsRequest(run_id=run_id))
        if not found:
            raise ExecutionError(f"the SuperLink knows no run {run_id}")
        return found[0]

    def runs(self) -> list[FlowerRun]:
        """Every run that it knows."""
        return self._runs(ListRunsRequest())

    def _runs(self, request: ListRunsRequest) -> list[FlowerRun]:
        with _in_one_line("list its runs"):
            found = self._client.ListRuns(request).run_dict
        return [_run(number, found[number].status) for number in found]

    def log(self, run_id: int, *, after: float = 0.0) -> Iterator[tuple[str, float]]:
        """What a run's server app says, with the time of the last line, until the run ends."""
        with _in_one_line(f"read the log of run {run_id}"):
            for piece in self._client.StreamLogs(StreamLogsRequest(run_id=run_id, after_timestamp=after)):
                yield piece.log_output, piece.latest_timestamp


def _run(number: int, status: RunStatus) -> FlowerRun:
    name = f"{status.status}:{status.sub_status}" if status.sub_status else status.status
    return FlowerRun(run_id=number, status=name, details=status.details)


@contextmanager
def control(folder: FederationFolder, port: int, *, timeout: float | None = None) -> Iterator[Control]:
    """The Control API of the SuperLink whose inner port is `port`; `timeout`: of an answer, in seconds."""
    client = ControlHttpClient.from_server_address(
        server_address=f"127.0.0.1:{port}",
        insecure=False,
        root_certificates=authority_file(folder).read_bytes(),
        interceptors=[_Token(control_token(folder)), RuntimeVersionHttpInterceptor(component_name="profl-server")],
    )
    if timeout is not None:
        client._client.timeout = httpx.Timeout(timeout)
    try:
        yield Control(client)
    finally:
        client.close()


@contextmanager
def _in_one_line(doing: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        reason = f"{error.response.status_code} {error.response.text[:200]}".strip()
        raise ExecutionError(f"the SuperLink did not {doing}: {reason}") from None
    except httpx.HTTPError as error:
        raise ExecutionError(
            f"the SuperLink did not {doing}: {str(error) or type(error).__name__}",
            remedy="see logs/superlink.log in the federation's folder",
        ) from None


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
