"""The SuperLink's process: Flower's own application, behind the guard, at sockets that the federation has opened.

    python -m server.federation.flower.superlink FOLDER DEVICE_SOCKETS CONTROL_SOCKET

where sockets are the numbers of inherited ones, with commas. It ends with the process that started it.
"""

from __future__ import annotations

import hmac
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

import uvicorn
from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE
from flwr.supercore.auth.typing import AccountInfo
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from server.federation.flower.guard import Guard
from server.federation.flower.pruning import keep_pruning, prune_at_start
from server.federation.flower.threads import FewThreads
from server.federation.home.certificates import authority_file, server_files
from server.federation.home.folder import FederationFolder
from server.federation.home.keys import control_token, launcher_secret

_LOG_BYTES = 4 << 20
_LOGS_KEPT = 2
_WATCH_SECONDS = 0.5
_GRACE_SECONDS = 5


class TokenOfTheFolder(NoOpControlAuthnPlugin):
    """Lets those in who can read the federation's folder: whoever starts a run executes code as its owner."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token.encode()

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Whether the request has the token, and Flower's only account if so."""
        for _, value in metadata:
            given = value if isinstance(value, bytes) else value.encode()
            if hmac.compare_digest(given, self._token):
                return super().validate_tokens_in_metadata(metadata)
        return False, None


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM, or until the parent is gone."""
    folder = FederationFolder.at(Path(arguments[0]))
    devices = [socket.socket(fileno=int(number)) for number in arguments[1].split(",")]
    control = socket.socket(fileno=int(arguments[2]))
    end_with_parent()
    _log_to(folder.logs / "superlink.log")
    host, port = control.getsockname()[:2]
    application = create_app(_config(folder, host, port), SuperLinkLifespan)
    state = application.state.linkstate_factory.state()
    prune_at_start(state, folder.database)
    keep_pruning(state)
    certificate, key = server_files(folder)
    server = uvicorn.Server(
        uvicorn.Config(
            FewThreads(Guard(application, [port])),
            log_config=None,
            access_log=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            server_header=False,
        )
    )
    server.run(sockets=[*devices, control])


def _config(folder: FederationFolder, host: str, port: int) -> SuperLinkLifespanConfig:
    """As `flower-superlink --isolation process` would make it of its options: the federation starts server apps."""
    authority = authority_file(folder)
    certificate, key = server_files(folder)
    return SuperLinkLifespanConfig(
        control_address=f"{host}:{port}",
        health_server_address=None,
        host=host,
        port=port,
        insecure=False,
        certificates=(authority.read_bytes(), certificate.read_bytes(), key.read_bytes()),
        superexec_auth_secret=launcher_secret(folder),
        authn_plugin=TokenOfTheFolder(control_token(folder)),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(authority),
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        database=str(folder.database),
        isolation="process",
        runtime_dependency_install=False,
    )


def end_with_parent() -> None:
    """End this process when the one that started it is gone, as after SIGTERM."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _says_something(record: logging.LogRecord) -> bool:
    """Whether it is more than that the page was written again."""
    return not str(record.msg).startswith(("ControlServicer.ListNodes", "ControlServicer.ListRuns"))


def _log_to(path: Path) -> None:
    """Have Flower's and the web server's lines in one file that does not grow without end."""
    handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("flwr", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.addFilter(_says_something)
        logger.setLevel(logging.INFO)


if __name__ == "__main__":
    main(sys.argv[1:])
