"""A SuperLink that somebody else runs: Flower's own commands, with TLS and authentication, and our app on it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

pytest.importorskip("torch", reason="bundles are exported with torch")
pytest.importorskip("flwr", reason="the federation runs on Flower")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from server.federation.submit import APP
from tests.support.superlink import SuperLink, flower_programs

FLEET = """
[model]
name = "cnn"
width = 8
batch = 32
partition = "0-2"

[data]
sources = ["digits"]
test_examples = 50

[method]
freezing = "equal"

[training]
steps = 2
rounds = 1
min_clients = 1
join_seconds = 0
"""


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[SuperLink]:
    (tmp_path / "superlink").mkdir()
    link = SuperLink(tmp_path / "superlink", programs=flower_programs(tmp_path / "bin"))
    link.start()
    yield link
    link.stop()


def _flwr(superlink: SuperLink, *arguments: str) -> str:
    command = [str(superlink.folder.parent / "bin" / "flwr"), *arguments]
    done = subprocess.run(command, env=superlink.environment, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{superlink.log()}"
    return done.stdout


def _connection(superlink: SuperLink) -> None:
    """As docs/federation.md shows it."""
    home = Path(superlink.environment["FLWR_HOME"])
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink.my-superlink]\naddress = "{superlink.address}"\nroot-certificates = "{superlink.ca}"\n'
    )


def _write_key(folder: Path) -> None:
    """A device's key pair, as `ssh-keygen -t ecdsa -b 384` makes it."""
    secret = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    (folder / "node.key").write_bytes(
        secret.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    (folder / "node.key").chmod(0o600)
    public = secret.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (folder / "node.key.pub").write_bytes(public)


def _write_orders_key(home: Path) -> Path:
    """The key of the orders, as `openssl ecparam` makes it; the file of its public half."""
    secret, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    (home / "keys").mkdir(parents=True)
    private = secret.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    (home / "keys" / "orders.key").write_bytes(private)
    public = secret.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (home / "orders.pem").write_bytes(public)
    return home / "orders.pem"


@pytest.mark.study  # half a minute, for what no other test starts: Flower's own SuperExec and command line
def test_our_app_runs_on_a_stock_superlink_that_flwr_run_submits_to(superlink: SuperLink, tmp_path: Path) -> None:
    _connection(superlink)
    _write_key(tmp_path)
    _flwr(superlink, "supernode", "register", str(tmp_path / "node.key.pub"), "my-superlink")
    (tmp_path / "fleet.toml").write_text(FLEET)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "edge_runtime.device", "join", superlink.address, "--ca", str(superlink.ca)]
    command += ["--key", str(tmp_path / "node.key"), "--data", "digits", "--memory-limit", "128MB", "--name", "board"]
    command += ["--state-dir", str(tmp_path / "state"), "--server-key", str(_write_orders_key(tmp_path / "home"))]
    with (tmp_path / "device.log").open("wb") as log:
        device = subprocess.Popen(command, stdout=log, stderr=log, env=superlink.environment, cwd=tmp_path)
    try:
        config = f'fleet="{tmp_path}/fleet.toml" run="{run}" federation="{tmp_path}/home"'
        _flwr(superlink, "run", str(APP), "my-superlink", "--run-config", config)
        end = time.monotonic() + 240
        while not (run / "summary.json").exists():
            assert time.monotonic() < end, f"{superlink.log()}\n{(tmp_path / 'device.log').read_text()}"
            time.sleep(0.5)
    finally:
        device.kill()
        device.wait()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["finished"] and [client["client"] for client in summary["clients"]] == ["board"]
    assert (run / "model.safetensors").exists()
