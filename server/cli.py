"""The command line of profl-server."""

from __future__ import annotations

import sys

import click

from edge_runtime.ending import as_process, exit_status
from server.commands.federation import federation
from server.commands.fleet import fleet
from server.commands.model import finish, merge
from server.commands.plan import plan
from server.commands.profiles import profiles
from server.commands.report import report
from server.commands.run import run
from server.commands.split import split

_PROGRAM = "profl-server"


@click.group()
def cli() -> None:
    """Plan the work of a fleet from device profiles, and run federated training."""


for _command in (plan, profiles, fleet, federation, run, report, split, merge, finish):
    cli.add_command(_command)


def main() -> None:
    """Entry point of profl-server."""
    sys.exit(as_process(_PROGRAM, _run))


def _run() -> int:
    return exit_status(_PROGRAM, lambda: cli.main(prog_name=_PROGRAM, standalone_mode=False))


if __name__ == "__main__":
    main()
