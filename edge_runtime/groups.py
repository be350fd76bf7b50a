"""Groups of commands: the three programs and the groups inside of them look and answer the same."""

from __future__ import annotations

from typing import Any

import click

from device_profiles.nearest import meant


class CommandGroup(click.Group):
    """A group with `-h`, `--version`, and an answer to a command that there is not."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        click.version_option(package_name="profl-edge")(self)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments; raises UsageError, naming the nearest, for none."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            raise click.UsageError(f"No such command '{name}'; {meant(name, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)
