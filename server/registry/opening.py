"""Which kind of registry a place is. Databases bring SQLAlchemy, which folders do without."""

from __future__ import annotations

from pathlib import Path

from device_profiles.errors import UsageError
from server.registry.folder import FolderRegistry
from server.registry.registry import Registry

_DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_SQLITE = b"SQLite format 3\0"


def open_registry(where: str, *, create: bool) -> Registry:
    """A folder, an SQLite file, or a database's URL (`postgresql://user@host/name`, `sqlite:///profiles.db`).

    What is not there yet is created where `create` says so: a name that ends in `.db`, `.sqlite` or `.sqlite3` becomes
    an SQLite file, any other a folder. Raises UsageError that names the place and the remedy.
    """
    if "://" in where:
        from server.registry.databases import database_registry

        return database_registry(where, create=create)
    path = Path(where)
    if not path.exists() and not create:
        raise UsageError(f"{where}: does not exist; create it with profl-server profiles import")
    if path.is_file() or (not path.exists() and path.suffix in _DATABASE_SUFFIXES):
        if path.is_file() and path.stat().st_size and not is_database(path):
            raise UsageError(f"{where}: is neither an SQLite file nor a folder; give one, or the URL of a database")
        from server.registry.databases import sqlite_registry

        return sqlite_registry(where, create=create)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{where}: is neither an SQLite file nor a folder; give one, or the URL of a database")
    return FolderRegistry(path)


def is_database(path: Path) -> bool:
    """Whether it is an SQLite file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE
