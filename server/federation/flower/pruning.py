"""Keeps the SuperLink's database small: Flower keeps what was never answered, or never fetched, until a run has ended.

Messages that have expired are removed while it runs, with the objects that only they hold. When it starts, what runs
have left that are finished is removed, and the disk gets the space back.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

from flwr.common.constant import Status
from flwr.server.superlink.linkstate import LinkState, SqlLinkState
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
from sqlalchemy import select

_EVERY_SECONDS = 600.0
_LATER_SECONDS = 300.0
"""How long a message is kept after its end: the server asks for what became of it."""
_AT_ONCE = 500
_LOGS_OF_RUNS = 3
"""Finished runs whose log is kept."""
_WORTH_BYTES = 1 << 20


def prune_at_start(state: LinkState, database: Path) -> None:
    """Remove what finished runs have left, and give the disk back what is free; nobody else has the database open."""
    for run in state.get_run_info(statuses=[Status.FINISHED]):
        state.cleanup_run(run.run_id)
    remove_expired(state)
    with closing(sqlite3.connect(database)) as connection:
        with connection:
            connection.execute(
                "DELETE FROM task_logs WHERE task_id IN (SELECT task_id FROM task WHERE finished_at IS NOT NULL"
                " ORDER BY finished_at DESC LIMIT -1 OFFSET ?)",
                (_LOGS_OF_RUNS,),
            )
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        if free * connection.execute("PRAGMA page_size").fetchone()[0] >= _WORTH_BYTES:
            connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def remove_expired(state: LinkState, *, now: float | None = None) -> int:
    """Remove messages that ended a while ago, with their answers and objects; how many there were."""
    if not isinstance(state, SqlLinkState):
        return 0
    before = (time.time() if now is None else now) - _LATER_SECONDS
    removed = 0
    while True:
        with state.session() as session:
            asked = set(
                session.scalars(
                    select(MessageIns.message_id).where(MessageIns.created_at + MessageIns.ttl < before).limit(_AT_ONCE)
                )
            )
            answered = set(
                session.scalars(select(MessageRes.message_id).where(MessageRes.reply_to_message_id.in_(asked)))
            )
        for object_id in asked | answered:
            state.object_store.delete(str(object_id))
        state.delete_messages({str(one) for one in asked})
        removed += len(asked)
        if len(asked) < _AT_ONCE:
            return removed


def keep_pruning(state: LinkState) -> None:
    """Remove what has expired every few minutes, for as long as this process lives."""

    def forever() -> None:
        while True:
            time.sleep(_EVERY_SECONDS)
            try:
                remove_expired(state)
            except Exception:  # of a database that is busy or damaged: the next time may do, and training goes on
                logging.getLogger("flwr").exception("expired messages could not be removed")

    threading.Thread(target=forever, daemon=True).start()
