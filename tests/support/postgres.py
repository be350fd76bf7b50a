"""A PostgreSQL cluster of a test's own, from Debian's package `postgresql`."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_USER = "postgres"


def _programs() -> Path:
    """The folder of `initdb` and `pg_ctl`; skips where there are none."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders or not (folders[-1] / "initdb").exists():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return folders[-1]


@contextmanager
def postgres() -> Iterator[str]:
    """Start a cluster in a temporary folder, which listens at a socket there alone; yields the URL of a database.

    PostgreSQL refuses to run as root: root becomes Debian's user `postgres` for it.
    """
    programs = _programs()
    as_user: dict[str, int | str] = {}
    if os.getuid() == 0:
        try:
            user = pwd.getpwnam(_USER)
        except KeyError:
            pytest.skip("there is no user postgres that PostgreSQL could run as")
        as_user = {"user": user.pw_uid, "group": user.pw_gid}
    folder = Path(tempfile.mkdtemp(prefix="profl-pg-", dir="/tmp"))  # paths of sockets are short
    if as_user:
        os.chown(folder, int(as_user["user"]), int(as_user["group"]))

    def command(*arguments: str) -> None:
        done = subprocess.run(arguments, cwd=folder, text=True, capture_output=True, check=False, **as_user)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr

    data = str(folder / "data")
    try:
        command(str(programs / "initdb"), "-D", data, "-A", "trust", "-U", _USER, "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        command(str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://{_USER}@/postgres?host={folder}"
        finally:
            command(str(programs / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
