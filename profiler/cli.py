"""The command line of profl-profile, and the one place where errors become exit statuses."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from device_profiles import streams
from device_profiles.errors import ProflError, UsageError
from profiler.commands.compare import compare
from profiler.commands.fit import fit
from profiler.commands.predict import predict
from profiler.commands.run import run
from profiler.commands.show import show


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
    try:
        cli.main(list(sys.argv[1:] if arguments is None else arguments), "profl-profile", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_status
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted; the same command continues", 130)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except ProflError as error:
        return _fail(str(error), error.exit_status)
    except OSError as error:
        return streams.ended_by(error, lambda line: _fail(line, 1))
    return 0


def console() -> int:
    """`main` for a process of its own: SIGTERM ends it as Ctrl-C does, so that what it started is cleaned up."""
    signal.signal(signal.SIGTERM, _interrupt)
    return streams.run(main, lambda line: _fail(line, 1))


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str, status: int) -> int:
    click.echo(f"profl-profile: error: {' '.join(message.split())}", err=True)
    return status
