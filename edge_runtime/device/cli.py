"""`profl-edge`: the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from device_profiles.errors import UsageError
from device_profiles.extras import extra_remedy
from edge_runtime.ending import as_process, exit_status
from edge_runtime.groups import CommandGroup

_PROGRAM = "profl-edge"
_COMMANDS = {
    # command: module that holds it as an attribute, line of the overview
    "models": ("edge_runtime.export.commands.models", "List built-in models with their units and default blocks."),
    "export": ("edge_runtime.export.commands.export", "Turn a PyTorch model into a bundle (requires torch)."),
    "inspect": ("edge_runtime.device.commands.inspect", "Show blocks, programs and memory plan of a bundle."),
    "train": ("edge_runtime.device.commands.train", "Train one block."),
    "eval": ("edge_runtime.device.commands.eval", "Evaluate accuracy and loss."),
    "join": ("edge_runtime.device.commands.join", "Train for a federation, task by task, as one of its devices."),
    "statistics": (
        "edge_runtime.device.commands.statistics",
        "Show mean and deviation of data, to normalise a model's input.",
    ),
    "bench": ("edge_runtime.device.commands.bench", "Measure time and memory of training steps on synthetic data."),
    "import-executorch": (
        "edge_runtime.device.commands.import_executorch",
        "Turn parameters that ExecuTorch trained on a phone into an update.",
    ),
    "doctor": ("edge_runtime.device.commands.doctor", "Show what this machine offers, and what is missing."),
}
_NAMES = {"eval": "eval_command", "import-executorch": "import_executorch"}
"""Attributes of modules whose commands have no name of Python's."""
_HOST_PACKAGES = {"torch", "executorch", "onnx", "torchao"}


class LazyGroup(CommandGroup):
    """A group that imports a command's module when the command is called: `--help` and `train` stay light."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, _NAMES.get(cmd_name, cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    epilog="Example: profl-edge train BUNDLE --block 1 --data digits -o update.safetensors",
)
def application() -> None:
    """Train one block of a neural network on a small device, within a promised memory limit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Errors are one line on standard error.

    Without `arguments` they are this process's own, whose standard streams it then sees to.
    """
    if arguments is None:
        return as_process(_PROGRAM, lambda: main(sys.argv[1:]))
    given = list(arguments)
    return exit_status(
        _PROGRAM,
        lambda: run(given),
        no_memory="no memory left; give the process more, or export a smaller batch or block",
    )


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit status a command asked for, raises its errors."""
    try:
        status = application.main(arguments, prog_name=_PROGRAM, standalone_mode=False, obj=arguments)
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name.partition(".")[0] not in _HOST_PACKAGES and not name.startswith("edge_runtime.export"):
            raise
        raise UsageError(f"'{arguments[0]}' needs the host's packages", remedy=extra_remedy("export")) from None
    return status if isinstance(status, int) else 0
