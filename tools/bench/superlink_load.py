"""How many clients does one SuperLink carry? `python -m tools.bench.superlink_load --clients 100`

Each round every client pulls a message with one file of `--mb`, fetches it and replies with it; nothing is trained.
Light clients share `--processes`; with `--stock`, stock SuperNodes take part in the same rounds. All is on this
machine, with TLS and authentication: what the clients take of its cores, the SuperLink has not. `--clients 1
--processes 1` says what one client costs. Requests are those of light clients, their questions for messages included.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import click
import msgspec

from device_profiles.federation import SentFile
from server.federation.flower.threads import THREADS
from tests.support.superlink import SuperLink

_MB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options."""

    clients: int
    stock: int
    mb: float
    rounds: int
    processes: int
    sample: int | None
    threads: int
    poll: float | None
    timeout: float

    @property
    def shares(self) -> list[tuple[int, int]]:
        """The first client and the number of them, for each process that has any."""
        cuts = [self.clients * number // self.processes for number in range(self.processes + 1)]
        return [(first, end - first) for first, end in pairwise(cuts) if end > first]


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--clients", type=click.IntRange(0), default=100, show_default=True, help="Light clients.")
@click.option("--stock", type=click.IntRange(0), default=0, show_default=True, help="Stock SuperNodes beside them.")
@click.option("--mb", type=click.FloatRange(0), default=1.0, show_default=True, help="Of the file, each way.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True, help="Of the light clients.")
@click.option(
    "--sample", type=click.IntRange(1), help="Light clients that each round asks, drawn anew.  [default: all]"
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=THREADS,
    show_default=True,
    help="Of the SuperLink; Flower's own number is 40.",
)
@click.option(
    "--poll", type=click.FloatRange(0.05), help="Seconds between two questions.  [default: as devices of a federation]"
)
@click.option(
    "--timeout", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds of a round at most."
)
def main(**options: Any) -> None:
    """Print a line a round, and a summary as one JSON object."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then too
    with tempfile.TemporaryDirectory(prefix="profl-load-") as folder:
        asked = Asked(**options)
        superlink = SuperLink(Path(folder), threads=asked.threads)
        superlink.start()
        try:
            summary = _run(superlink, asked)
        finally:
            superlink.stop()
    click.echo(json.dumps(summary))


def _run(superlink: SuperLink, asked: Asked) -> dict[str, Any]:
    nodes = [superlink.register(_new_key(superlink.folder / f"key-{number}")) for number in range(asked.clients)]
    idle = _tree_kb(superlink.pid)
    started = [_start(superlink, first, count, asked.poll) for first, count in asked.shares]
    resident = [json.loads(_line(process))["resident_kb"] for process in started]
    nodes += [superlink.start_node(superlink.folder / f"stock-{number}") for number in range(asked.stock)]
    app = superlink.run()
    file = superlink.folder / "file"
    draw = random.Random(0)
    seconds: list[float] = []
    answers: list[int] = []
    start = time.monotonic()
    for number in range(asked.rounds):
        file.write_bytes(os.urandom(round(asked.mb * _MB)))
        document = msgspec.json.encode(SentFile.of(file)).decode()
        drawn = draw.sample(nodes[: asked.clients], asked.sample or asked.clients) + nodes[asked.clients :]
        sent = app.ask(drawn, document, {"file": file}, timeout=asked.timeout)
        done = app.done(sent, asked.timeout + 60)
        seconds.append(done["seconds"])
        answers.append(done["answers"])
        click.echo(f"round {number + 1}: {done['answers']} of {len(drawn)} in {done['seconds']:.1f} s")
    took = time.monotonic() - start
    superlink_kb, others_kb = _tree_kb(superlink.pid)
    database = sum(path.stat().st_size for path in superlink.folder.glob("state.db*"))
    app.end()
    ended = [json.loads(process.communicate("")[0].splitlines()[-1]) for process in started]
    return {
        **dataclasses.asdict(asked),
        "answers": answers,
        "seconds_first_round": seconds[0],
        "seconds_round_median": median(seconds[1:] or seconds),
        "requests_per_second": sum(end["requests"] for end in ended) / took,
        "superlink_idle_mb": idle[0] / 1024,
        "superlink_peak_mb": superlink_kb / 1024,
        "server_app_and_executor_peak_mb": others_kb / 1024,
        "database_mb": database / _MB,
        "process_idle_mb": [kb / 1024 for kb in resident],
        "process_peak_mb": [end["peak_kb"] / 1024 for end in ended],
        "process_after_mb": [end["resident_after_kb"] / 1024 for end in ended],
        "clients_in_process": [count for _, count in asked.shares],
        "cores": os.cpu_count(),
    }


def _new_key(path: Path) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem = ec.generate_private_key(ec.SECP384R1()), serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(0o600)
    path.write_bytes(secret)
    return key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)


def _start(superlink: SuperLink, first: int, count: int, poll: float | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tools.bench.light_client", superlink.address, str(superlink.ca)]
    command += [str(superlink.folder), str(first), str(count), *([] if poll is None else [str(poll)])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _tree_kb(root: int) -> tuple[int, int]:
    """VmHWM of a process, and the sum of those of its descendants, in KiB."""
    peaks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        except OSError:
            continue  # it has ended
        pid = int(fields["Pid"])
        peaks[pid] = int(fields.get("VmHWM", "0 kB").split()[0])
        children.setdefault(int(fields["PPid"]), []).append(pid)
    waiting, others = list(children.get(root, [])), 0
    while waiting:
        pid = waiting.pop()
        others += peaks[pid]
        waiting += children.get(pid, [])
    return peaks.get(root, 0), others


if __name__ == "__main__":
    main()
