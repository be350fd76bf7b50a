"""The command line of profl-profile."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from device_profiles.errors import ProflError, UsageError
from edge_runtime.device.commands.options import FILE, json_option, parse_size, thread_count, threads_option

if TYPE_CHECKING:
    from device_profiles.contract import Purpose
    from device_profiles.profile import DeviceProfile

_PURPOSES: dict[str, tuple[Purpose, ...]] = {"grow": ("grow",), "eval": ("eval",), "all": ("grow", "eval")}


class _DefaultCommand(click.Group):
    """A group where `profl-profile BUNDLE` means `profl-profile run BUNDLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help", "--version"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_DefaultCommand,
    epilog="Example: profl-profile bundles/resnet18 --limit 128MB -o phone.json",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="profl-edge")
def cli() -> None:
    """Measure what training each block of a bundle costs on this device.

    `profl-profile BUNDLE` is short for `profl-profile run BUNDLE`.
    """


@cli.command(epilog="Example: profl-profile bundles/resnet18 --limit 128MB -o phone.json")
@click.argument("bundle", type=FILE)
@click.option(
    "--limit", "limit_bytes", type=parse_size, metavar="SIZE", help="Hard memory limit of every measurement: 128MB."
)
@click.option("--block", type=click.IntRange(1), help="Only this block, counted from 1.")
@click.option("--purpose", type=click.Choice(list(_PURPOSES)), default="grow", show_default=True, help="Programs.")
@click.option("--steps", type=click.IntRange(1), default=3, show_default=True, help="Timed steps of a process.")
@click.option("--warmup", "warmup_steps", type=click.IntRange(0), default=1, show_default=True, help="Untimed steps.")
@click.option("--repetitions", type=click.IntRange(1), default=1, show_default=True, help="Processes a program.")
@threads_option
@click.option("--name", default=platform.node() or "device", help="Name of the device [default: its host name].")
@click.option("-o", "--output", type=FILE, default=Path("profile.json"), show_default=True, help="Profile to write.")
@json_option
def run(purpose: str, threads: int | None, as_json: bool, **options: Any) -> None:
    """Measure programs of BUNDLE, each in a fresh process, and write the profile.

    The profile is written after every program; the same command continues an interrupted one.
    """
    from profiler.profile import ProfileRequest, profile_bundle

    request = ProfileRequest(purposes=_PURPOSES[purpose], threads=thread_count(threads), **options)
    profile = profile_bundle(request, progress=lambda line: click.echo(line, err=True))
    _print([profile], as_json)


@cli.command(epilog="Example: profl-profile show phone.json board.json")
@click.argument("profiles", nargs=-1, required=True, type=FILE)
@json_option
def show(profiles: tuple[Path, ...], as_json: bool) -> None:
    """Show device profiles as tables; with --json, one object with all of them under `profiles`."""
    from device_profiles.files import read_json
    from device_profiles.profile import DeviceProfile

    read = [read_json(path, DeviceProfile) for path in profiles]
    _print(read, as_json, listed=True)


def _print(profiles: list[DeviceProfile], as_json: bool, *, listed: bool = False) -> None:
    import msgspec

    from profiler.table import profile_table

    if as_json:
        click.echo(msgspec.json.encode({"profiles": profiles} if listed else profiles[0]))
        return
    click.echo("\n\n".join(profile_table(profile) for profile in profiles))


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
        return _fail(str(error), 1)
    return 0


def _fail(message: str, status: int) -> int:
    click.echo(f"profl-profile: error: {' '.join(message.split())}", err=True)
    return status
