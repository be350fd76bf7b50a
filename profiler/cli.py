"""The command line of profl-profile."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from edge_runtime.ending import as_process, exit_status
from profiler.commands.compare import compare
from profiler.commands.fit import fit
from profiler.commands.predict import predict
from profiler.commands.run import run
from profiler.commands.show import show

_PROGRAM = "profl-profile"


class _DefaultCommand(click.Group):
    """A group where `profl-profile BUNDLE` means `profl-profile run BUNDLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help", "--version"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_DefaultCommand,
    commands=[run, fit, predict, show, compare],
    epilog="Example: profl-profile bundles/resnet18 --limit 128MB -o phone.json",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="profl-edge")
def cli() -> None:
    """Measure what training each block of a bundle costs on this device.

    `profl-profile BUNDLE` is short for `profl-profile run BUNDLE`.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Errors are one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status(
        _PROGRAM,
        lambda: cli.main(given, _PROGRAM, standalone_mode=False),
        interrupted="interrupted; the same command continues",
    )


def console() -> int:
    """`main` for a process of its own: SIGTERM ends it as Ctrl-C does, so that what it started is cleaned up."""
    signal.signal(signal.SIGTERM, _interrupt)
    return as_process(_PROGRAM, main)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
