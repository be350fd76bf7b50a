"""How every command line ends: one line on standard error for what went wrong, and an exit status."""

from __future__ import annotations

from collections.abc import Callable

import click

from device_profiles import streams
from device_profiles.errors import ProflError, UsageError

_INTERRUPTED_STATUS = 130
"""Of a process that Ctrl-C ended, as shells give it."""


def exit_status(
    program: str,
    command: Callable[[], object],
    *,
    interrupted: str = "interrupted",
    no_memory: str = "no memory left; give the process more",
) -> int:
    """Run `command`, a command line of click's that raises its errors; returns the exit status.

    Errors are one line on standard error, behind the name of `program`: those of the project, of click's options and of
    the operating system. `interrupted` and `no_memory` are what to say of Ctrl-C and MemoryError. Faults of the program
    itself, which nobody expected, are raised.
    """
    try:
        status = command()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_status
    except (click.Abort, KeyboardInterrupt):
        return complain(program, interrupted, _INTERRUPTED_STATUS)
    except click.ClickException as error:
        return complain(program, error.format_message(), error.exit_code)
    except ProflError as error:
        return complain(program, str(error), error.exit_status)
    except MemoryError:
        return complain(program, no_memory)
    except OSError as error:
        # A full disk, a folder that may not be written: the user's to mend, not a fault of the program.
        return streams.ended_by(error, lambda line: complain(program, line))
    return status if isinstance(status, int) else 0


def as_process(program: str, main: Callable[[], int]) -> int:
    """Run `main`, a whole command line, as a process of its own, and see to its standard streams; its exit status."""
    return streams.run(main, lambda line: complain(program, line))


def complain(program: str, message: str, status: int = 1) -> int:
    """Print `message` as the one line of an error; returns `status`."""
    click.echo(f"{program}: error: {' '.join(message.split())}", err=True)
    return status
