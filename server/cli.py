"""The command line of profl-server."""

from __future__ import annotations

import sys

import click

from device_profiles.errors import UsageError
from device_profiles.extras import extra_remedy
from edge_runtime.ending import as_process, exit_status
from edge_runtime.groups import CommandGroup
from server.commands.federation import federation
from server.commands.fleet import fleet
from server.commands.model import finish, merge
from server.commands.plan import plan
from server.commands.profiles import profiles
from server.commands.report import report
from server.commands.run import run
from server.commands.split import split

_PROGRAM = "profl-server"
_PACKAGES = {"numpy", "safetensors", "torch", "executorch", "jinja2", "matplotlib", "sqlalchemy", "tomli_w"}
"""Of the extra `server`, which a device does without."""


@click.group(cls=CommandGroup, epilog="Example: profl-server run --fleet examples/fleets/demo.toml -o runs/demo")
def cli() -> None:
    """Plan the work of a fleet from device profiles, and run federated training."""


for _command in (plan, profiles, fleet, federation, run, report, split, merge, finish):
    cli.add_command(_command)


def main() -> None:
    """Entry point of profl-server."""
    sys.exit(as_process(_PROGRAM, _run))


def _run() -> int:
    return exit_status(_PROGRAM, _called)


def _called() -> object:
    try:
        return cli.main(prog_name=_PROGRAM, standalone_mode=False)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise UsageError(f"this needs the package {package}", remedy=extra_remedy("server")) from None


if __name__ == "__main__":
    main()
