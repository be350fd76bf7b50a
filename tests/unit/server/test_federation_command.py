"""`profl-server federation` where no SuperLink runs: what it prints, and what it refuses in one line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("flwr")

from device_profiles.errors import UsageError
from device_profiles.invitation import decode_invitation
from server.cli import cli
from server.federation.home.certificates import authority_file, make_certificates
from server.federation.home.devices import read_devices
from server.federation.home.folder import FederationFolder, Settings
from server.federation.home.keys import load_key, public_pem
from server.federation.submit import submit_run


@pytest.fixture
def folder(tmp_path: Path) -> FederationFolder:
    place = FederationFolder.at(tmp_path / "federation")
    place.make()
    make_certificates(place, ["server.local"])
    place.keep(Settings(hosts=("server.local",), port=9092))
    return place


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["federation", *map(str, arguments)])


def _refused(*arguments: object) -> str:
    result = _run(*arguments)
    assert isinstance(result.exception, UsageError), result.exception
    return str(result.exception)


def test_the_line_holds_all_that_a_device_needs_and_the_key_is_kept_nowhere_else(folder: FederationFolder) -> None:
    result = _run(
        "add-device", "board1", "--federation", folder.path, "--data", "npz:my data.npz", "--memory-limit", "1GB"
    )
    line = result.stdout
    words = shlex.split(line)
    assert line.count("\n") == 1 and words[:3] == ["profl-edge", "join", "--invite"]
    assert words[4:] == ["--data", "npz:my data.npz", "--memory-limit", "1024MB"]
    assert "can join once it is" in result.stderr
    invitation = decode_invitation(words[3])
    assert (invitation.name, invitation.address) == ("board1", "server.local:9092")
    assert invitation.ca == authority_file(folder).read_text()
    assert invitation.server_key == public_pem(load_key(folder.keys / "orders.key")).decode()
    (device,) = read_devices(folder).devices
    assert (device.name, device.node_id, device.memory_limit_bytes) == ("board1", None, 1 << 30)
    secret = invitation.key.splitlines()[1]
    assert not any(secret in file.read_text(errors="replace") for file in folder.path.rglob("*") if file.is_file())


def test_what_a_line_does_not_say_is_left_for_the_owner(folder: FederationFolder) -> None:
    result = _run("add-device", "board1", "--federation", folder.path)
    assert result.stdout.endswith(" --data DATA --memory-limit LIMIT\n") and "in the place of DATA" in result.stderr


def test_a_key_that_is_kept_is_for_its_owner_alone(folder: FederationFolder, tmp_path: Path) -> None:
    key = tmp_path / "board1.key"
    assert _run("add-device", "board1", "--federation", folder.path, "--keep-key", key).exit_code == 0
    assert key.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----") and key.stat().st_mode & 0o777 == 0o600


def test_devices_are_removed_and_json_is_one_object(folder: FederationFolder) -> None:
    added = json.loads(_run("add-device", "board1", "--federation", folder.path, "--json").stdout)
    assert added["name"] == "board1" and added["node_id"] is None and added["invitation"] in added["line"]
    shown = json.loads(_run("status", folder.path, "--json").stdout)
    assert (shown["up"], [d["connection"] for d in shown["devices"]]) == (False, ["unknown"])
    removed = json.loads(_run("remove-device", "board1", "--federation", folder.path, "--json").stdout)
    assert removed == {"removed": "board1", "at_once": False}
    assert json.loads(_run("down", folder.path, "--json").stdout) == {"ended": 0}
    assert "no devices; add one" in _run("status", folder.path).stdout


def test_the_page_is_written_where_it_was_asked_for(folder: FederationFolder, tmp_path: Path) -> None:
    assert _run("status", folder.path, "--html", tmp_path / "page.html").exit_code == 0
    assert "The federation is down" in (tmp_path / "page.html").read_text()


def test_what_cannot_work_is_one_line(folder: FederationFolder, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for command in (["status"], ["down"], ["stop"]):
        assert "is not the folder of a federation; make one with" in _refused(*command, nowhere)
    for command in (["add-device", "x"], ["remove-device", "x"]):
        assert "is not the folder of a federation" in _refused(*command, "--federation", nowhere)
    assert "the federation is not up; start it: profl-server federation up" in _refused("stop", folder.path)
    assert "--watch and --json cannot be combined" in _refused("status", folder.path, "--watch", "--json")
    assert "--host 'a b': is neither an address nor a name" in _refused("up", nowhere, "--host", "a b")
    assert "board 1" in _refused("add-device", "board 1", "--federation", folder.path)
    assert not nowhere.exists()


def test_a_run_is_not_submitted_to_a_federation_that_is_down(folder: FederationFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the federation is not up"):
        submit_run(folder.path, tmp_path / "fleet.toml", tmp_path / "run", resume=False)
