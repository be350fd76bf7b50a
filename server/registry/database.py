"""Profiles in a database: SQLite or PostgreSQL, through SQLAlchemy.

The content of a profile is stored once, by its digest; a device has a row that leads to it. Writers take turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, Row, create_engine, delete, event, exists, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError

from device_profiles.errors import ExecutionError, FormatError, ProflError
from device_profiles.profile import DeviceProfile
from device_profiles.wrong_values import explained
from server.registry.documents import check_new, digest_of, entry_of, from_document, named, to_document
from server.registry.registry import Entry, Key
from server.registry.schema import DEVICES, DOCUMENTS, VERSION, bring_up_to_date, version_of

_COLUMNS = tuple(field.name for field in msgspec.structs.fields(Entry))
_BATCH = 500
"""Rows that are read or written by one statement."""
_WRITERS = 0x70726F66
"""PostgreSQL's advisory lock of those who write."""
_WAIT_SECONDS = 60
"""For another writer of an SQLite file."""


class DatabaseRegistry:
    """The tables are created, or brought to this release's version, when it is opened."""

    def __init__(self, url: URL, *, create: bool) -> None:
        self.where = url.render_as_string(hide_password=True)
        arguments: dict[str, Any] = {}
        if url.get_backend_name() == "sqlite":
            arguments = {"timeout": _WAIT_SECONDS, "isolation_level": None}
        self._engine = create_engine(url, connect_args=arguments)
        self._insert: Any = postgresql.insert
        if url.get_backend_name() == "sqlite":
            self._insert = sqlite.insert
            event.listen(self._engine, "begin", _begin)
        with self._reading() as connection:
            version = version_of(connection, self.where)
        if version != VERSION:
            with self._writing() as connection:
                bring_up_to_date(connection, self.where, create=create)

    def put(self, profiles: Iterable[DeviceProfile]) -> None:
        """Add or replace profiles, all or none."""
        waiting = iter(profiles)
        with self._writing() as connection:
            while batch := list(islice(waiting, _BATCH)):
                self._put_batch(connection, batch)

    def _put_batch(self, connection: Connection, batch: Sequence[DeviceProfile]) -> None:
        documents, entries = {}, {}
        for profile in batch:
            check_new(profile)
            document = to_document(profile)
            entry = entry_of(profile, digest_of(document))
            documents[entry.digest] = document
            entries[entry.key] = entry
        names = {key.device for key in entries}
        before = set(connection.scalars(select(DEVICES.c.digest).where(DEVICES.c.device.in_(names))))
        rows = [{"digest": digest, "document": document} for digest, document in documents.items()]
        connection.execute(self._insert(DOCUMENTS).on_conflict_do_nothing(), rows)
        new = self._insert(DEVICES)
        changed = {name: new.excluded[name] for name in _COLUMNS if name not in Key._fields}
        replace = new.on_conflict_do_update(index_elements=Key._fields, set_=changed)
        connection.execute(replace, [msgspec.structs.asdict(entry) for entry in entries.values()])
        _forget_unused(connection, before)

    def entries(self, *, device: str | None = None, bundle_sha256: str | None = None) -> Iterator[Entry | FormatError]:
        """Read without the profiles' contents."""
        query = select(*(DEVICES.c[name] for name in _COLUMNS)).order_by(*(DEVICES.c[name] for name in Key._fields))
        if device is not None:
            query = query.where(DEVICES.c.device == device)
        if bundle_sha256 is not None:
            query = query.where(DEVICES.c.bundle_sha256 == bundle_sha256)
        with self._reading() as connection:
            for row in connection.execution_options(yield_per=_BATCH).execute(query):
                yield self._entry(row)

    def profiles(
        self, *, device: str | None = None, bundle_sha256: str | None = None
    ) -> Iterator[DeviceProfile | FormatError]:
        """A content that devices share is read again only where others, too many to keep, came between them."""
        waiting = self.entries(device=device, bundle_sha256=bundle_sha256)
        known: dict[str, DeviceProfile] = {}
        while batch := list(islice(waiting, _BATCH)):
            if len(known) > _BATCH:
                known.clear()
            wanted = {entry.digest for entry in batch if isinstance(entry, Entry)} - known.keys()
            with self._reading() as connection:
                found = connection.execute(select(DOCUMENTS).where(DOCUMENTS.c.digest.in_(wanted)))
                documents = {digest: document for digest, document in found}
            for entry in batch:
                if isinstance(entry, FormatError):
                    yield entry
                    continue
                profile = known.get(entry.digest) or self._profile(entry, documents.get(entry.digest))
                if not isinstance(profile, FormatError):
                    known[entry.digest] = profile
                    profile = named(profile, entry.device)
                yield profile

    def remove(self, keys: Iterable[Key]) -> int:
        """Remove their rows, and contents that nobody has any more."""
        removed = 0
        with self._writing() as connection:
            for key in keys:
                there = [DEVICES.c[name] == value for name, value in key._asdict().items()]
                before = set(connection.scalars(select(DEVICES.c.digest).where(*there)))
                removed += connection.execute(delete(DEVICES).where(*there)).rowcount
                _forget_unused(connection, before)
        return removed

    def _entry(self, row: Row[Any]) -> Entry | FormatError:
        values = dict(zip(_COLUMNS, row, strict=True))
        try:
            return msgspec.convert(values, Entry, strict=True)
        except msgspec.ValidationError as error:
            return FormatError(f"{self.where}: row of {values['device']!r}: {explained(error, Entry)}")

    def _profile(self, entry: Entry, document: object) -> DeviceProfile | FormatError:
        source = f"{self.where}: profile of {entry.device}"
        if not isinstance(document, bytes) or digest_of(document) != entry.digest:  # SQLite keeps texts there as well
            return FormatError(f"{source}: its content is {'missing' if document is None else 'damaged'}")
        try:
            return from_document(document, source)
        except FormatError as error:
            return error

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._naming(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that is alone among writers, and does nothing where the body raises."""
        with self._naming(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if self._engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITERS})
            yield connection

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """What the database says is an error of the project, one line that names the registry."""
        try:
            yield
        except DBAPIError as error:
            kind: type[ProflError] = ExecutionError if isinstance(error, OperationalError) else FormatError
            raise kind(f"{self.where}: {' '.join(str(error.orig).split())}") from None


def _begin(connection: Connection) -> None:
    """SQLite takes its lock when a transaction begins: one that reads first could not get it any more."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _forget_unused(connection: Connection, digests: Set[str]) -> None:
    """Remove those of these contents that no device has any more."""
    used = exists().where(DEVICES.c.digest == DOCUMENTS.c.digest)
    connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.digest.in_(digests), ~used))
