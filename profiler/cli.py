"""The command line of profl-profile."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Sequence
from typing import NoReturn

import click

from device_profiles.nearest import meant, nearest
from edge_runtime.ending import as_process, exit_status
from edge_runtime.groups import CommandGroup
from profiler.commands.compare import compare
from profiler.commands.fit import fit
from profiler.commands.predict import predict
from profiler.commands.run import run
from profiler.commands.show import show

_PROGRAM = "profl-profile"


class _DefaultCommand(CommandGroup):
    """A group where `profl-profile BUNDLE` means `profl-profile run BUNDLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command; raises UsageError for a command that is misspelled and no bundle."""
        if args and _is_misspelled(args[0], self.commands):
            said = f"'{args[0]}' is neither a command nor a bundle; {meant(args[0], self.commands)}"
            raise click.UsageError(said, ctx)
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help", "--version"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def _is_misspelled(word: str, commands: Collection[str]) -> bool:
    if word.startswith("-") or word in commands or os.path.exists(word):
        return False
    return bool(nearest(word, commands))


@click.group(
    cls=_DefaultCommand,
    commands=[run, fit, predict, show, compare],
    epilog="Example: profl-profile bundles/resnet18 --limit 128MB -o phone.json",
)
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
