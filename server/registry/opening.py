"""Which kind of registry a place is."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from device_profiles.errors import UsageError
from device_profiles.extras import extra_remedy
from server.registry.database import DatabaseRegistry
from server.registry.folder import FolderRegistry
from server.registry.registry import Registry

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
_DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_SQLITE = b"SQLite format 3\0"


def open_registry(where: str, *, create: bool) -> Registry:
    """A folder, an SQLite file, or a database's URL (`postgresql://user@host/name`, `sqlite:///profiles.db`).

    What is not there yet is created where `create` says so: a name that ends in `.db`, `.sqlite` or `.sqlite3` becomes
    an SQLite file, any other a folder. Raises UsageError that names the place and the remedy.
    """
    if "://" in where:
        return _database(where, create=create)
    path = Path(where)
    if not path.exists() and not create:
        raise UsageError(f"{where}: does not exist; create it with profl-server profiles import")
    if path.is_file() or (not path.exists() and path.suffix in _DATABASE_SUFFIXES):
        if path.is_file() and path.stat().st_size and not is_database(path):
            raise UsageError(f"{where}: is neither an SQLite file nor a folder; give one, or the URL of a database")
        return DatabaseRegistry(URL.create("sqlite", database=where), create=create)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{where}: is neither an SQLite file nor a folder; give one, or the URL of a database")
    return FolderRegistry(path)


def is_database(path: Path) -> bool:
    """Whether it is an SQLite file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _database(where: str, *, create: bool) -> DatabaseRegistry:
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise UsageError("the registry's URL cannot be read; write postgresql://user@host/name") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        kinds = " and ".join(_DRIVERS)
        raise UsageError(f"{url.render_as_string()}: is no database of a kind that is known; there are {kinds}")
    if url.drivername == "sqlite" and (url.database is None or not (create or Path(url.database).exists())):
        raise UsageError(f"{where}: does not exist; create it with profl-server profiles import")
    try:
        return DatabaseRegistry(url.set(drivername=driver), create=create)
    except (ImportError, NoSuchModuleError):
        raise UsageError(f"{url.render_as_string()}: requires psycopg", remedy=extra_remedy("postgresql")) from None
