"""`profl-edge join` at a real SuperLink, with TLS and authentication: it answers, trains within its limit, and ends."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_profiles.federation import QUERY_DEVICE, TRAIN_TASK, UPDATE_FILE, DeviceQuestion, SentFile
from device_profiles.invitation import Invitation
from edge_runtime.device.fleet_api.keys import NodeKey
from tests.support.bundles import commanded
from tests.support.federation_client import MEGABYTE, bundle_files, memory_of, train_order
from tests.support.superlink import Rounds, SuperLink

if any(importlib.util.find_spec(name) is None for name in ("flwr", "torch", "executorch")):
    pytest.skip("needs a SuperLink and an exporter: pip install profl-edge[federation]", allow_module_level=True)

_ROOT = Path(__file__).parents[2]
_LIMIT = 128 * MEGABYTE
_IDLE = 30 * MEGABYTE


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    link = SuperLink(tmp_path_factory.mktemp("superlink"))
    link.start()
    yield link
    link.stop()


@pytest.fixture(scope="module")
def bundle() -> Path:
    return commanded("--model", "cnn", "--batch", 8, "--block", 1)


class _Device:
    """An invited device, and the server's key that signs its orders."""

    def __init__(self, superlink: SuperLink, folder: Path) -> None:
        key = NodeKey.create(folder / "node.key")
        self._signer = ec.generate_private_key(ec.SECP256R1())
        self.node = superlink.register(key.public_pem)
        public = self._signer.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.word = Invitation(
            name="bench",
            address=superlink.address,
            ca=superlink.ca.read_text(),
            key=(folder / "node.key").read_text(),
            server_key=public.decode(),
        ).encoded()
        self.state = folder / "state"
        self.log = folder / "log"

    def start(self, *options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edge_runtime.device", "join", "--state-dir", str(self.state), "--json"]
        with self.log.open("a") as log:
            return subprocess.Popen(
                [*command, *map(str, options)],
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                stdout=log,
                stderr=subprocess.PIPE,
                text=True,
            )

    def ask(self, rounds: Rounds, kind: str, order: msgspec.Struct, files: dict[str, Path] | None = None) -> int:
        raw = msgspec.json.encode(order)
        signature = self._signer.sign(raw, ec.ECDSA(hashes.SHA256()))
        return rounds.ask([self.node], raw.decode(), files, kind=kind, signature=signature.hex())

    def wait_for(self, event: str, process: subprocess.Popen[str], *, seconds: float = 60.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while True:
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            found = [line for line in lines if line["event"] == event]
            if found:
                return found[-1]  # type: ignore[no-any-return]
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < end, lines
            time.sleep(0.1)


def test_a_device_joins_trains_within_its_limit_through_a_kill_and_leaves(
    superlink: SuperLink, bundle: Path, tmp_path: Path
) -> None:
    device = _Device(superlink, tmp_path)
    process = device.start("--invite", device.word, "--data", "digits", "--memory-limit", "128MB")
    device.wait_for("joined", process)
    rounds = superlink.run()
    try:
        question = device.ask(rounds, QUERY_DEVICE, DeviceQuestion(release="1"))
        answer = rounds.answer(question, device.node)
        assert memory_of(process.pid)["VmHWM"] <= _IDLE
        assert answer["name"] == "bench"
        files = bundle_files(bundle)
        order = train_order(files, steps=300, promise_bytes=answer["budget_bytes"])
        training = device.ask(rounds, TRAIN_TASK, order, files)
        device.wait_for("work", process)
        process.kill()
        process.wait()
        process = device.start()  # the state folder knows the rest
        result = rounds.answer(training, device.node)
        assert result["result"]["status"] == "ok"
        assert result["result"]["measured_peak_bytes"] + result["transport_peak_bytes"] <= _LIMIT
        assert msgspec.json.decode(json.dumps(result["update"]), type=SentFile) == SentFile.of(
            rounds.file(training, device.node, UPDATE_FILE)
        )
        unsigned = rounds.ask([device.node], msgspec.json.encode(order).decode(), files, signature="00")
        rounds.done(unsigned)
        assert "is not signed" in device.wait_for("refused", process)["text"]
    finally:
        rounds.end()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    process = device.start()
    superlink.unregister(device.node)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert "does not know" in errors
