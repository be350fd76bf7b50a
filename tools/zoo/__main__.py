"""Which models of other packages can be exported: `python -m tools.zoo`.

    python -m tools.zoo --only 'swin*'          # some of them
    python -m tools.zoo --jobs 2 --document     # all that have no result yet, then the table of docs/models.md
    python -m tools.zoo --list tools/zoo/others.toml

Every model of the list is made with random weights, cut into blocks, exported and verified in a process of its own.
Results are kept as they come, so that a run that was ended goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import click

from edge_runtime.ending import as_process, exit_status
from tools.zoo.entries import LIST, Entry, Result, entries_in, keep_results, known_results
from tools.zoo.one import export_one
from tools.zoo.table import table, write_document

_PRELOADED = [
    "torch",
    "torch._dynamo",
    "torch._functorch.aot_autograd",
    "torch.export._trace",
    "edge_runtime.export.targets.native",
    "edge_runtime.export.emit.pte",
    "edge_runtime.export.verify.verify",
]
"""What a process has from the start."""


class _Job:
    """A model that is being exported."""

    def __init__(self, context: Any, entry: Entry, blocks: int, seconds: float) -> None:
        self.entry = entry
        self.answer, given = context.Pipe(duplex=False)
        self.process = context.Process(target=export_one, args=(entry, blocks, given), daemon=True)
        self.process.start()
        given.close()
        self.ends = time.monotonic() + seconds

    def result(self) -> Result | None:
        """What it came to; None while it goes on."""
        refusal = ""
        if self.answer.poll():
            try:
                return self._received(self.answer.recv())
            except EOFError:
                self.process.join()
                refusal = f"the process ended with status {self.process.exitcode}"
        elif time.monotonic() > self.ends:
            self.end()
            refusal = "took too long"
        if not refusal:
            return None
        return Result(name=self.entry.name, input_shape=self.entry.input_shape, refusal=refusal)

    def _received(self, result: Result) -> Result:
        self.process.join()
        return result

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


@click.command(epilog="Example: python -m tools.zoo --only 'efficient*' --jobs 2")
@click.option("--list", "path", type=click.Path(path_type=Path, exists=True), default=LIST, help="Models to export.")
@click.option("--only", help="Only the models whose names match this pattern.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Models at a time.")
@click.option("--blocks", type=click.IntRange(1), default=2, show_default=True, help="Blocks that each is cut into.")
@click.option("--seconds", type=click.FloatRange(1), default=900.0, show_default=True, help="Time for one model.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path("zoo.json"), show_default=True, help="Kept results."
)
@click.option("--again", is_flag=True, help="Also export again what was refused.")
@click.option("--known", "known_only", is_flag=True, help="Export nothing, and show the results that there are.")
@click.option("--document", is_flag=True, help="Write the table into docs/models.md instead of printing it.")
def main(
    path: Path,
    only: str | None,
    jobs: int,
    blocks: int,
    seconds: float,
    results: Path,
    again: bool,
    known_only: bool,
    document: bool,
) -> None:
    """Export every model of a list, and show which can be trained."""
    entries = entries_in(path, only)
    known = known_results(results)
    waiting = [e for e in entries if e.name not in known or (again and known[e.name].refusal)]
    if known_only:
        waiting, entries = [], [entry for entry in entries if entry.name in known]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, *sorted({entry.package for entry in waiting})])
    running: list[_Job] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Job(context, waiting.pop(0), blocks, seconds))
            wait([job.answer for job in running], timeout=1.0)
            for job in list(running):
                result = job.result()
                if result is not None:
                    running.remove(job)
                    known[result.name] = result
                    keep_results(results, known)
                    click.echo(f"{result.name}: {result.refusal or f'{result.seconds:.1f} s'}", err=True)
    finally:
        for job in running:
            job.end()
    found = [known[entry.name] for entry in entries]
    if document:
        write_document(path.stem, found)
    else:
        click.echo(table(found), nl=False)


if __name__ == "__main__":
    sys.exit(as_process("tools.zoo", lambda: exit_status("tools.zoo", lambda: main.main(standalone_mode=False))))
