"""The tables of a registry in a database, and how an older schema becomes this one.

A migration is written in the terms of its own time: it must not follow later changes of the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)

from device_profiles.errors import FormatError, UsageError

_METADATA = MetaData()
SCHEMA_VERSION = Table("profl_schema_version", _METADATA, Column("version", Integer, nullable=False))
DOCUMENTS = Table(
    "profl_documents",
    _METADATA,
    Column("digest", Text, primary_key=True),
    Column("document", LargeBinary, nullable=False),
)
DEVICES = Table(
    "profl_devices",
    _METADATA,
    Column("device", Text, primary_key=True),
    Column("bundle_sha256", Text, primary_key=True),
    Column("runtime", Text, primary_key=True),
    Column("digest", Text, ForeignKey(DOCUMENTS.c.digest), nullable=False),
    Column("model", Text, nullable=False),
    Column("budget_bytes", BigInteger),
    Index("profl_devices_by_digest", "digest"),
)


def _to_2(connection: Connection) -> None:
    """A list needs no contents any more: rows of devices have the model and the budget too."""
    connection.execute(text("ALTER TABLE profl_devices ADD COLUMN model TEXT NOT NULL DEFAULT ''"))
    connection.execute(text("ALTER TABLE profl_devices ADD COLUMN budget_bytes BIGINT"))
    fill = text("UPDATE profl_devices SET model = :model, budget_bytes = :budget WHERE digest = :digest")
    for digest, document in connection.execute(text("SELECT digest, document FROM profl_documents")).all():
        try:
            content: dict[str, Any] = msgspec.json.decode(document, type=dict[str, Any])
            device, model = content["device"], str(content["model"])
            budget = device.get("limit_bytes") or device.get("memory_available_bytes")
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
            continue  # a damaged content: whoever reads it is told
        connection.execute(fill, {"digest": digest, "model": model, "budget": budget})


MIGRATIONS: Sequence[Callable[[Connection], None]] = (_to_2,)
"""The first leads from version 1 to 2."""
VERSION = len(MIGRATIONS) + 1


def version_of(connection: Connection, where: str) -> int | None:
    """The version of the schema, None where there is none; raises FormatError for one that is not known here."""
    if not inspect(connection).has_table(SCHEMA_VERSION.name):
        return None
    versions = list(connection.scalars(select(SCHEMA_VERSION.c.version)))
    if len(versions) != 1 or not isinstance(versions[0], int) or versions[0] < 1:
        raise FormatError(f"{where}: {SCHEMA_VERSION.name} does not hold one version")
    version: int = versions[0]
    if version > VERSION:
        raise FormatError(
            f"{where}: has version {version} of the schema, this release reads up to {VERSION}; install a newer release"
        )
    return version


def bring_up_to_date(connection: Connection, where: str, *, create: bool) -> None:
    """Create the tables, or migrate them to `VERSION`; raises UsageError where there are none and none are wanted.

    The caller holds the lock of writers, and commits.
    """
    version = version_of(connection, where)
    if version is None:
        if not create:
            raise UsageError(f"{where}: holds no profiles; import some with profl-server profiles import")
        _METADATA.create_all(connection)
        connection.execute(insert(SCHEMA_VERSION).values(version=VERSION))
        return
    for migrate in MIGRATIONS[version - 1 :]:
        migrate(connection)
    connection.execute(update(SCHEMA_VERSION).values(version=VERSION))
