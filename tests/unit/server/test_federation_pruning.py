"""What the SuperLink's database is rid of, in Flower's own state."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import SqlLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
from flwr.supercore.utils import uint64_to_int64
from flwr.superlink.config_loader import get_objectstore_linkstate_factories
from flwr.superlink.federation import NoOpFederationManager
from sqlalchemy import insert

from server.federation.flower.pruning import prune_at_start, remove_expired

HOUR = 3600.0


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "superlink.db"


@pytest.fixture
def state(database: Path) -> Iterator[SqlLinkState]:
    _, factory = get_objectstore_linkstate_factories(str(database), NoOpFederationManager())
    made = factory.state()
    assert isinstance(made, SqlLinkState)
    yield made


def _run(state: SqlLinkState) -> int:
    return state.create_run("bench/app", "1.0", None, {}, NOOP_FEDERATION_ID, None, "<id:none>", TaskType.SERVER_APP)


def _message(
    state: SqlLinkState, run: int, name: str, *, created_at: float, answered: bool = False, kib: int = 1
) -> None:
    """A message with an object of its own, that lives for an hour; its answer has one as well."""
    rows = [(MessageIns, name, "")] + ([(MessageRes, f"answer to {name}", name)] if answered else [])
    for kind, text, reply_to in rows:
        root, leaf = (hashlib.sha256(f"{text}{part}".encode()).hexdigest() for part in ("root", "leaf"))
        tree = ObjectTree(object_id=root, children=[ObjectTree(object_id=leaf)])
        assert state.object_store.preregister(run, tree)
        with state.session() as session:
            session.execute(
                insert(kind).values(
                    message_id=root,
                    run_id=uint64_to_int64(run),
                    reply_to_message_id=hashlib.sha256(f"{reply_to}root".encode()).hexdigest() if reply_to else "",
                    created_at=created_at,
                    delivered_at="",
                    ttl=HOUR,
                )
            )
            session.connection().exec_driver_sql(
                "UPDATE objects SET content = ?, is_available = 1 WHERE object_id = ?", (b"x" * (kib << 10), leaf)
            )


def _rows(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(database)) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("message_ins", "message_res", "objects", "run_objects")
        }


def test_messages_go_a_while_after_their_end_with_answers_and_objects(state: SqlLinkState, database: Path) -> None:
    run = _run(state)
    _message(state, run, "never answered", created_at=1000.0)
    _message(state, run, "answered too late", created_at=1000.0, answered=True)
    _message(state, run, "of now", created_at=1000.0 + 2 * HOUR, answered=True)
    assert _rows(database) == {"message_ins": 3, "message_res": 2, "objects": 10, "run_objects": 10}
    assert remove_expired(state, now=1000.0 + HOUR + 10) == 0, "the server may still ask what became of them"
    assert remove_expired(state, now=1000.0 + HOUR + 400) == 2
    assert _rows(database) == {"message_ins": 1, "message_res": 1, "objects": 4, "run_objects": 4}


def test_what_a_finished_run_left_goes_at_the_start_and_the_disk_gets_it_back(
    state: SqlLinkState, database: Path
) -> None:
    finished, going_on = _run(state), _run(state)
    _message(state, finished, "left", created_at=time.time(), answered=True, kib=4096)
    _message(state, going_on, "asked", created_at=time.time())
    task = state.get_run_info(run_ids=[finished])[0].primary_task_id
    assert task is not None
    state.claim_task(task)
    state.activate_task(task)
    state.add_task_log(task, "round 1")
    assert state.finish_task(task, "completed", "")
    prune_at_start(state, database)
    assert _rows(database) == {"message_ins": 1, "message_res": 0, "objects": 2, "run_objects": 2}
    assert database.stat().st_size < 2 << 20
    assert state.get_task_log(task, 0.0)[0] == "round 1", "of the last runs"
