"""`profl-edge join` up to the client's start: what the first start keeps, and what is refused in one line."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from device_profiles.invitation import Invitation, decode_invitation
from edge_runtime.device.cli import main
from edge_runtime.device.commands import join as command
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.federation.state import StateFolder
from edge_runtime.device.federation.unit_file import unit_file
from edge_runtime.device.fleet_api.keys import NodeKey

_CA = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


class _Started(Exception):
    """The client would begin."""

    def __init__(self, state: StateFolder, settings: Settings) -> None:
        self.state, self.settings = state, settings


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def become(state: StateFolder, settings: Settings, **more: object) -> None:
        raise _Started(state, settings)

    monkeypatch.setattr(command, "_become", become)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))


def _join(*arguments: object) -> _Started:
    with pytest.raises(_Started) as caught:
        main(["join", *map(str, arguments)])
    return caught.value


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["join", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0].removeprefix("profl-edge: error: ")


@pytest.fixture
def word(tmp_path: Path) -> str:
    key = NodeKey.create(tmp_path / "invited.key")
    return Invitation(
        name="kitchen",
        address="fleet.local:9092",
        ca=_CA,
        key=(tmp_path / "invited.key").read_text(),
        server_key=key.public_pem.decode(),
    ).encoded()


def test_an_invitation_is_kept_for_its_owner_alone_and_needed_once(word: str, tmp_path: Path) -> None:
    first = _join("--invite", word, "--data", "digits", "--memory-limit", "128MB", "--when", "cool,idle")
    state = first.state
    assert state.path == tmp_path / "states" / "profl-edge" / "kitchen"
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (state.key, state.ca, state.server_key)} == {0o600}
    assert state.key.read_text() == decode_invitation(word).key
    assert first.settings == Settings(
        name="kitchen",
        address="fleet.local:9092",
        data="digits",
        limit_bytes=128 << 20,
        when=("idle", "cool"),
        invited=True,
    )
    again = _join()
    assert (again.state.path, again.settings) == (state.path, first.settings)
    changed = _join("--memory-limit", "256MB", "--quiet-hours", "22:00-07:00", "--when", "always")
    assert (changed.settings.limit_bytes, changed.settings.when) == (256 << 20, ())
    assert _join("--quiet-hours", "none").settings.quiet_hours is None
    assert _join("--nice", "15").settings.niceness == _join().settings.niceness == 15


def test_files_do_instead_of_an_invitation(tmp_path: Path) -> None:
    NodeKey.create(tmp_path / "node.key")
    (tmp_path / "ca.crt").write_text(_CA)
    files = ("--ca", tmp_path / "ca.crt", "--key", tmp_path / "node.key")
    more = ("--data", "digits", "--memory-limit", "128MB")
    begun = _join("fleet.local:9092", *files, *more, "--name", "bench")
    assert begun.state.path.name == "bench"
    assert (begun.settings.name, begun.settings.invited) == ("bench", False)
    assert begun.state.ca.read_text() == _CA
    assert not begun.state.server_key.exists()
    unnamed = _join("fleet.local:9092", *files, *more, "--state-dir", tmp_path / "state")
    assert unnamed.state.path == tmp_path / "state"


def test_without_a_name_one_of_several_federations_is_not_guessed(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "this device belongs to no federation yet; give --invite" in _refusal(capsys)
    more = ("--data", "digits", "--memory-limit", "128MB")
    _join("--invite", word, *more)
    NodeKey.create(tmp_path / "node.key")
    (tmp_path / "ca.crt").write_text(_CA)
    _join("other.local:1", "--ca", tmp_path / "ca.crt", "--key", tmp_path / "node.key", "--name", "attic", *more)
    assert _refusal(capsys) == "this device is part of several federations, as attic, kitchen; give --name"
    assert _join("--name", "attic").settings.address == "other.local:1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--invite", "abc"), "--invite: is not an invitation"),
        (("fleet.local", "--data", "digits", "--memory-limit", "128MB"), "is no address of a SuperLink"),
        (
            ("fleet.local:1", "--data", "digits", "--memory-limit", "128MB"),
            "nothing says who this device is",
        ),
        (("fleet.local:1", "--memory-limit", "128MB"), "this device has no data set yet; give --data"),
        (("fleet.local:1", "--data", "digits"), "nothing says what memory a training may use; give --memory-limit"),
        (("fleet.local:1", "--data", "digits", "--memory-limit", "40MB"), "--memory-limit: 40 MB are too few"),
        (("fleet.local:1", "--data", "digits", "--memory-limit", "1GB", "--insecure"), "--insecure: fleet.local:1 is"),
        (("fleet.local:1", "--when", "warm"), "--when warm: 'warm' is no condition"),
        (("fleet.local:1", "--quiet-hours", "night"), "--quiet-hours night: are no hours of a day"),
        (
            ("fleet.local:1", "--data", "d", "--memory-limit", "1GB", "--name", "../x"),
            "--name ../x: cannot name a device",
        ),
        (
            ("fleet.local:1", "--data", "d", "--memory-limit", "1GB", "--key", "absent"),
            "absent: the key cannot be read",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in _refusal(capsys, *arguments)
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("option", [("fleet.local:1",), ("--name", "a"), ("--key", "k"), ("--insecure",)])
def test_options_that_the_invitation_has_are_refused_beside_it(
    word: str, capsys: pytest.CaptureFixture[str], option: tuple[str, ...]
) -> None:
    assert "cannot be combined with --invite" in _refusal(capsys, "--invite", word, *option)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    NodeKey.create(tmp_path / "node.key")
    (tmp_path / "node.key").chmod(0o644)
    arguments: tuple[Any, ...] = ("h:1", "--data", "d", "--memory-limit", "1GB", "--key", tmp_path / "node.key")
    assert "chmod 600" in _refusal(capsys, *arguments)


def test_a_unit_starts_the_same_client(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", "--invite", word, "--data", "digits", "--memory-limit", "128MB", "--systemd"]) == 0
    unit = capsys.readouterr().out
    assert f"WorkingDirectory={os.getcwd()}" in unit
    assert "profl-edge/kitchen" in unit
    assert " join --state-dir " in unit
    assert word not in unit
    assert "PRIVATE" not in unit


def test_a_unit_takes_words_that_systemd_would_change() -> None:
    settings = Settings(name="a", address="h:1", data="d", limit_bytes=1)
    unit = unit_file(settings, ["/opt/my python", "--state-dir", "/a%b/$c"], user="me", folder="/here")
    assert 'ExecStart="/opt/my python" --state-dir "/a%%b/$$c"' in unit
