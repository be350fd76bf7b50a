"""Registries in a database, from a file or a URL."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from device_profiles.errors import UsageError
from device_profiles.extras import extra_remedy
from server.registry.database import DatabaseRegistry

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


def sqlite_registry(where: str, *, create: bool) -> DatabaseRegistry:
    """That of an SQLite file."""
    return DatabaseRegistry(URL.create("sqlite", database=where), create=create)


def database_registry(where: str, *, create: bool) -> DatabaseRegistry:
    """That of a URL; raises UsageError that names it and the remedy."""
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
