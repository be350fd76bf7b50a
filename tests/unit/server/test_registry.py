"""A registry of device profiles: the same in a folder, in SQLite and in PostgreSQL."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import create_engine, make_url, text

from device_profiles.errors import ExecutionError, FormatError, UsageError
from device_profiles.files import write_json
from server.registry.documents import LARGEST_BYTES, key_of, read_profile
from server.registry.opening import open_registry
from server.registry.registry import Entry, Registry
from server.registry.schema import VERSION
from tests.support.postgres import postgres
from tests.support.profiles import profile_of

ROOT = Path(__file__).resolve().parents[3]
VERSION_1 = (ROOT / "tests" / "golden" / "registry-version-1.sql").read_text()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


Statements = Callable[..., list[tuple[object, ...]]]


@pytest.fixture(params=["folder", "sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "profiles")
    if request.param == "sqlite":
        return str(tmp_path / "profiles.db")
    return _emptied(request.getfixturevalue("server"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'profiles.db'}"
    return _emptied(request.getfixturevalue("server"))


def _emptied(url: str) -> str:
    _execute(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return url


def _execute(where: str, *statements: str) -> list[tuple[object, ...]]:
    """The rows of the last of some statements."""
    url = make_url(where)
    engine = create_engine(url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url)
    with engine.begin() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        rows = [tuple(row) for row in results[-1]] if results[-1].returns_rows else []
    engine.dispose()
    return rows


def _names(registry: Registry) -> list[str]:
    return [entry.device if isinstance(entry, Entry) else str(entry) for entry in registry.entries()]


def test_profiles_are_kept_by_device_bundle_and_runtime(where: str) -> None:
    registry = open_registry(where, create=True)
    phone, board = profile_of("phone"), profile_of("board", limit_bytes=40 << 20)
    other = profile_of("phone", bundle_sha256="0" * 64)
    registry.put([phone, board, other])
    again = open_registry(where, create=False)
    assert list(again.profiles()) == [board, other, phone]
    assert [e.key for e in again.entries() if isinstance(e, Entry)] == [key_of(p) for p in (board, other, phone)]
    (line,) = again.entries(device="board")
    assert isinstance(line, Entry) and line.budget_bytes == 40 << 20 and line.model == board.model
    assert list(again.profiles(bundle_sha256="0" * 64)) == [other]
    assert list(again.profiles(device="phone", bundle_sha256=phone.bundle_sha256)) == [phone]
    assert list(again.profiles(device="nobody")) == []


def test_a_profile_of_the_same_key_is_replaced(where: str) -> None:
    registry = open_registry(where, create=True)
    registry.put([profile_of("phone"), profile_of("board")])
    newer = profile_of("phone", limit_bytes=40 << 20)
    registry.put([newer])
    assert list(registry.profiles(device="phone")) == [newer] and _names(registry) == ["board", "phone"]


def test_removing_counts_what_was_there(where: str) -> None:
    registry = open_registry(where, create=True)
    phone, board = profile_of("phone"), profile_of("board")
    registry.put([phone, board])
    assert registry.remove([key_of(phone), key_of(profile_of("nobody"))]) == 1
    assert list(registry.profiles()) == [board]


def test_devices_that_are_alike_share_their_content(database: str) -> None:
    registry = open_registry(database, create=True)
    registry.put([profile_of(f"phone{number}") for number in range(1200)])
    assert _execute(database, "SELECT count(*) FROM profl_documents") == [(1,)]
    assert [p.device.name for p in registry.profiles() if not isinstance(p, FormatError)] == sorted(
        f"phone{number}" for number in range(1200)
    )
    registry.put([profile_of("phone7", limit_bytes=1 << 20)])
    assert _execute(database, "SELECT count(*) FROM profl_documents") == [(2,)]
    registry.put([profile_of("phone7")])
    assert _execute(database, "SELECT count(*) FROM profl_documents") == [(1,)]
    keys = [entry.key for entry in registry.entries() if isinstance(entry, Entry)]
    assert registry.remove(keys[1:]) == 1199
    assert _execute(database, "SELECT count(*) FROM profl_documents") == [(1,)]
    assert registry.remove(keys) == 1
    assert _execute(database, "SELECT count(*) FROM profl_documents") == [(0,)]


def test_names_of_strangers_are_kept_as_they_are(where: str) -> None:
    names = ["../../etc/passwd", ".hidden", "'; DROP TABLE profl_devices; --", "中文 телефон", "x" * 400, "a b", "a-b"]
    registry = open_registry(where, create=True)
    registry.put([profile_of(name) for name in names])
    assert sorted(_names(registry)) == sorted(names)
    if Path(where).is_dir():
        assert len(list(Path(where).iterdir())) == len(names) == len(list(Path(where).glob("[A-Za-z]*.json")))


def test_what_contradicts_itself_is_refused_and_nothing_of_its_batch_is_kept(where: str) -> None:
    registry = open_registry(where, create=True)
    wrong = msgspec.structs.replace(profile_of("wrong"), bundle_sha256="no digest")
    with pytest.raises(FormatError, match="profile of wrong: bundle_sha256 is not a SHA-256"):
        registry.put([profile_of("right"), wrong])
    with pytest.raises(FormatError, match="profile: device: name is empty"):
        registry.put([profile_of("right"), profile_of("")])
    assert list(registry.entries()) == []


def test_a_damaged_content_is_one_line_and_the_others_stay(database: str) -> None:
    registry = open_registry(database, create=True)
    registry.put([profile_of("a"), profile_of("b", limit_bytes=1 << 20), profile_of("c")])
    (line,) = registry.entries(device="b")
    assert isinstance(line, Entry)
    _execute(database, f"UPDATE profl_documents SET document = '{{}}' WHERE digest = '{line.digest}'")
    first, damaged, last = registry.profiles()
    assert (first, last) == (profile_of("a"), profile_of("c"))
    assert isinstance(damaged, FormatError) and str(damaged).endswith("profile of b: its content is damaged")


def test_a_damaged_row_is_one_line_and_the_others_stay(database: str) -> None:
    registry = open_registry(database, create=True)
    registry.put([profile_of("a"), profile_of("b")])
    _execute(database, "UPDATE profl_devices SET runtime = 'abacus' WHERE device = 'b'")
    first, damaged = registry.profiles()
    assert first == profile_of("a") and isinstance(damaged, FormatError)
    assert "row of 'b': runtime: 'abacus' is none of" in str(damaged)


def test_a_damaged_file_is_one_line_and_the_others_stay(tmp_path: Path) -> None:
    registry = open_registry(str(tmp_path), create=True)
    registry.put([profile_of("a"), profile_of("b")])
    write_json(tmp_path / "by-hand.json", profile_of("b"))
    (tmp_path / "torn.json").write_text('{"format_version": 2, "dev')
    lines = [str(entry) for entry in registry.entries() if isinstance(entry, FormatError)]
    assert len(lines) == 2 and lines[0].startswith(f"{tmp_path / 'by-hand.json'}: is a second profile of b")
    assert lines[1].startswith(f"{tmp_path / 'torn.json'}: ")
    assert [entry.device for entry in registry.entries() if isinstance(entry, Entry)] == ["a", "b"]


def test_a_file_that_was_put_there_by_hand_keeps_its_name(tmp_path: Path) -> None:
    write_json(tmp_path / "mine.json", profile_of("phone"))
    registry = open_registry(str(tmp_path), create=False)
    registry.put([profile_of("phone", limit_bytes=1 << 20)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    assert read_profile(tmp_path / "mine.json").device.limit_bytes == 1 << 20


def test_a_file_that_no_profile_fills_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(FormatError, match=r"large\.json: is larger than 16 MB"):
        read_profile(path)


_WRITER = """
import sys
from server.registry.opening import open_registry
from tests.support.profiles import profile_of
sys.stdin.readline()
for turn in range(4):
    names = [f"device{sys.argv[2]}-{turn}-{n}" for n in range(5)] + ["shared"]
    limit_bytes = (int(sys.argv[2]) + 1) << 20
    open_registry(sys.argv[1], create=True).put([profile_of(n, limit_bytes=limit_bytes) for n in names])
"""


def test_processes_that_write_at_the_same_time_lose_nothing(where: str) -> None:
    """They also create the registry at the same time, and replace one device's profile."""
    command = [sys.executable, "-c", _WRITER, where]
    writers = [
        subprocess.Popen([*command, str(n)], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    registry = open_registry(where, create=False)
    devices = {f"device{n}-{turn}-{m}" for n in range(4) for turn in range(4) for m in range(5)}
    assert _names(registry) == sorted(devices | {"shared"})
    assert not any(isinstance(profile, FormatError) for profile in registry.profiles())


def _version_1(database: str) -> None:
    """What version 1 wrote, in the words of the database."""
    statements = [s for s in VERSION_1.split(";\n") if s.strip() not in ("BEGIN TRANSACTION", "COMMIT", "")]
    if make_url(database).drivername == "postgresql":
        statements = [re.sub(r"X'([0-9A-F]+)'", r"'\\x\1'", s).replace("BLOB", "BYTEA") for s in statements]
        statements.sort(key=lambda s: ("REFERENCES" in s, "INSERT" in s, "profl_devices" in s))
        statements.sort(key=lambda s: 0 if s.startswith("CREATE TABLE") else 1)
    _execute(database, *(statement.replace(":", r"\:") for statement in statements))


@pytest.mark.parametrize("torn", [False, True])
def test_a_database_of_version_1_is_migrated(database: str, torn: bool) -> None:
    _version_1(database)
    if torn:
        _execute(database, "UPDATE profl_documents SET document = '[1'")
    registry = open_registry(database, create=False)
    assert _execute(database, "SELECT version FROM profl_schema_version") == [(VERSION,)]
    lines = [entry for entry in registry.entries() if isinstance(entry, Entry)]
    assert [line.device for line in lines] == ["board", "old phone's", "phone"]
    read = list(registry.profiles())
    if torn:
        assert len(read) == 3 and all(isinstance(profile, FormatError) for profile in read)
        return
    expected = [profile_of("board"), profile_of("old phone's", limit_bytes=40 << 20), profile_of("phone")]
    assert read == expected
    assert [line.budget_bytes for line in lines] == [profile.device.budget_bytes for profile in expected]
    assert {line.model for line in lines} == {expected[0].model}
    registry.put([profile_of("new")])
    assert len(list(registry.entries())) == 4


def test_a_newer_schema_is_left_alone(database: str) -> None:
    open_registry(database, create=True)
    _execute(database, f"UPDATE profl_schema_version SET version = {VERSION + 1}")
    with pytest.raises(FormatError, match="install a newer release"):
        open_registry(database, create=True)
    _execute(database, "DELETE FROM profl_schema_version")
    with pytest.raises(FormatError, match="does not hold one version"):
        open_registry(database, create=False)


def test_an_empty_database_holds_no_profiles(database: str) -> None:
    _execute(database, "SELECT 1")
    if make_url(database).drivername == "sqlite":
        Path(make_url(database).database or "").touch()
    with pytest.raises(UsageError, match="holds no profiles; import some with profl-server profiles import"):
        open_registry(database, create=False)


def test_places_that_are_no_registry_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for where, message in [
        (str(tmp_path / "notes.txt"), "is neither an SQLite file nor a folder"),
        (str(tmp_path / "absent.db"), "does not exist; create it with profl-server profiles import"),
        (str(tmp_path / "absent"), "does not exist; create it with profl-server profiles import"),
        (f"sqlite:///{tmp_path / 'absent.db'}", "does not exist"),
        ("mysql://user:secret@host/profiles", "there are sqlite and postgresql"),
        ("postgresql://host:port/x", "cannot be read; write postgresql://user@host/name"),
    ]:
        with pytest.raises(UsageError, match=re.escape(message)) as raised:
            open_registry(where, create=False)
        assert "secret" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_a_server_that_does_not_answer_is_one_line_without_the_password() -> None:
    with pytest.raises(ExecutionError) as raised:
        open_registry("postgresql://user:secret@127.0.0.1:1/profiles", create=True)
    assert str(raised.value).startswith("postgresql+psycopg://user:***@127.0.0.1:1/profiles: ")
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_torn_database_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "profiles.db"
    open_registry(str(path), create=True).put([profile_of("phone")])
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 4000)
    with pytest.raises((FormatError, ExecutionError), match=f"{path}: "):
        open_registry(str(path), create=False)
