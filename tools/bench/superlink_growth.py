"""How the database of a federation's SuperLink grows over rounds of small messages, and what pruning leaves of it.

    python -m tools.bench.superlink_growth --rounds 1000 --clients 4

The last client of each round does not answer: late and lost answers are what a SuperLink keeps.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from server.commands.federation_up import run_detached
from server.federation.admission import admit
from server.federation.home.certificates import authority_file
from server.federation.home.folder import FederationFolder, Settings
from server.federation.processes import end_federation
from server.federation.submit import CONFIG, submit_run, wait_run
from server.rounds.stopping import stop_signals
from tests.support.flower_project import flower_project

_APP = Path(__file__).with_name("superlink_growth_app")
_PROJECT = flower_project("growth", server="growth.server_app:app", client="growth.client_app:app", config=CONFIG)


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--bytes", "size", type=click.IntRange(1), default=2000, show_default=True, help="Of a task, and of a reply."
)
@click.option("--unanswered", type=click.IntRange(0), default=1, show_default=True, help="Tasks of a round.")
def main(rounds: int, clients: int, size: int, unanswered: int) -> None:
    """Print the database's bytes as the rounds go by, its largest tables, and both after the run and after pruning."""
    with stop_signals(), tempfile.TemporaryDirectory(prefix="profl-growth-") as name:
        work = Path(name)
        place = FederationFolder.at(work / "federation")
        app, run = _app(work), work / "run"
        run.mkdir()
        asked = work / "asked.json"
        asked.write_text(json.dumps({"rounds": rounds, "clients": clients, "bytes": size, "unanswered": unanswered}))
        run_detached(place, Settings(port=0))
        try:
            with _clients(place, work, clients, unanswered, size):
                start = time.monotonic()
                number = submit_run(place.path, asked, run, resume=False, app=app)
                seen = [0]
                ended = wait_run(place.path, number, tick=lambda: _tick(place, run, seen, max(1, rounds // 10)))
                click.echo(f"{ended.status} {ended.details} after {time.monotonic() - start:.0f} s")
            _show(place, "after the run")
            end_federation(place)
            _show(place, "when the federation is down")
            run_detached(place, Settings(port=0))
            _show(place, "when it is up again")
        finally:
            end_federation(place)


def _app(work: Path) -> Path:
    app = work / "growth"
    (app / "growth").mkdir(parents=True)
    (app / "pyproject.toml").write_text(_PROJECT)
    (app / "LICENSE").write_text("See the project that this app belongs to.")
    for file in _APP.glob("*.py"):
        (app / "growth" / file.name).write_bytes(file.read_bytes())
    return app


@contextmanager
def _clients(place: FederationFolder, work: Path, clients: int, silent: int, size: int) -> Iterator[None]:
    """Threads that answer every task, but for `silent` that take it and say nothing more."""
    stop, threads, reply = threading.Event(), [], work / "reply"
    reply.write_bytes(b"u" * size)
    for number in range(clients):
        key = work / f"{number}.key"
        address = admit(place, f"client{number}", memory_limit_bytes=None, data=None, keep_key=key).address
        link = Link(address, ca=authority_file(place), key=NodeKey.load(key), stop=stop)
        link.activate()
        answer = None if number < silent else reply
        threads.append(threading.Thread(target=_serve, args=(link, answer, stop)))
        threads[-1].start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _serve(link: Link, reply: Path | None, stop: threading.Event) -> None:
    while not stop.is_set():
        incoming = link.pull()
        if incoming is None:
            time.sleep(0.3)
            continue
        document, _ = link.order(incoming)
        link.confirm(incoming)
        if reply is not None:
            link.reply(incoming, document, {"update.safetensors": reply}, seconds=0.0)
    link.deactivate()


def _tick(place: FederationFolder, run: Path, seen: list[int], every: int) -> None:
    file = run / "rounds"
    done = int(file.read_text() or 0) if file.exists() else 0
    if done // every > seen[0] // every:
        _show(place, f"after {done} rounds")
    seen[0] = done


def _show(place: FederationFolder, when: str) -> None:
    """Bytes on disk, and the rows of every table that has any."""
    files = [place.database, *place.path.glob(f"{place.database.name}-*")]
    size = sum(file.stat().st_size for file in files if file.exists())
    with closing(sqlite3.connect(f"file:{place.database}?mode=ro", uri=True, timeout=30)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}
    largest = sorted((count, table) for table, count in rows.items() if count > 3)[::-1]
    click.echo(f"{when}: {size / 2**20:.2f} MB; rows: {', '.join(f'{t} {c}' for c, t in largest) or 'hardly any'}")


if __name__ == "__main__":
    main()
