"""Options and output that the commands of the profiler share."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from device_profiles.errors import UsageError
from edge_runtime.device.commands.options import FILE, json_option, threads_option
from edge_runtime.options import Finite, OutputFile, Size

if TYPE_CHECKING:
    from device_profiles.profile import DeviceProfile
    from device_profiles.timeline import Timelines
    from profiler.report.compare import Comparison
    from profiler.torch.meter import ModelChoice

F = TypeVar("F", bound=Callable[..., Any])

_MEASURING = [
    click.option("--block", type=click.IntRange(1), help="Only this block, counted from 1."),
    click.option(
        "--runtime",
        type=click.Choice(["native", "torch"]),
        default="native",
        show_default=True,
        help="Runtime to measure: this package's own, or PyTorch eager (requires torch).",
    ),
    click.option(
        "--device",
        type=click.Choice(["cpu", "cuda"]),
        default="cpu",
        show_default=True,
        help="Device for --runtime torch.",
    ),
    click.option(
        "--model", help="With --runtime torch, instead of a bundle: a built-in model or package.module:factory."
    ),
    click.option("--width", type=click.IntRange(1), help="Channels of a built-in model's first convolution."),
    click.option("--input", "input_text", default="3x32x32", show_default=True, help="Shape of one example, CxHxW."),
    click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="Number of classes."),
    click.option("--blocks", type=click.IntRange(1), help="Cut the model into N blocks."),
    click.option("--batch", type=click.IntRange(2), default=32, show_default=True, help="Examples in one step."),
    click.option("--steps", type=click.IntRange(1), default=3, show_default=True, help="Timed steps in each process."),
    click.option(
        "--warmup", "warmup_steps", type=click.IntRange(0), default=1, show_default=True, help="Untimed steps."
    ),
    click.option(
        "--timeout",
        "timeout_seconds",
        type=Finite(1),
        default=900.0,
        show_default=True,
        help="Seconds after which a process is stopped.",
    ),
    threads_option,
    click.option("--name", default=platform.node() or "device", help="Name of the device [default: the host name]."),
    json_option,
]
limit_option = click.option(
    "--limit", "limit_bytes", type=Size(), metavar="SIZE", help="Hard memory limit of every measurement, such as 128MB."
)
html_option = click.option("--html", type=OutputFile(), help="Also write a self-contained HTML page with figures.")
timelines_option = click.option(
    "--timelines",
    "timelines",
    type=FILE,
    multiple=True,
    help="For --html: what `run --timelines` wrote, or a bundle, whose plans are drawn; may be repeated.",
)
profiles_argument = click.argument("profiles", nargs=-1, required=True, type=FILE)


def measuring_options(command: F) -> F:
    """Add what every command that measures understands."""
    for option in reversed(_MEASURING):
        command = option(command)
    return command


def model_choice(
    bundles: Sequence[Path],
    *,
    runtime: str,
    model: str | None,
    width: int | None,
    input_text: str,
    classes: int,
    blocks: int | None,
) -> ModelChoice | None:
    """The model asked for without a bundle; raises UsageError where options contradict each other."""
    if model is None:
        if not bundles:
            raise UsageError("give a BUNDLE, or --model with --runtime torch")
        return None
    if bundles:
        raise UsageError("--model: cannot be combined with a BUNDLE, which contains its model")
    if runtime != "torch":
        raise UsageError("--model: requires --runtime torch; the native runtime runs bundles (profl-edge export)")
    from profiler.torch.meter import ModelChoice

    return ModelChoice(model=model, width=width, classes=classes, input_shape=_shape(input_text), blocks=blocks)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--input {text}: write channels x height x width, such as 3x32x32")
    return tuple(int(part) for part in parts)


def read_profiles(paths: Sequence[Path]) -> list[DeviceProfile]:
    """Read and check profiles, `shipped:NAME` among them; raises FormatError naming the file and the field."""
    from device_profiles.files import read_json
    from device_profiles.profile import DeviceProfile
    from device_profiles.shipped import PREFIX, shipped_profile

    return [
        shipped_profile(str(path).removeprefix(PREFIX))
        if str(path).startswith(PREFIX)
        else read_json(path, DeviceProfile)
        for path in paths
    ]


def read_timelines(paths: Sequence[Path]) -> Timelines:
    """Those of files and bundles together; raises FormatError naming the file, UsageError for a bundle without any."""
    from device_profiles.contract import FORMAT_VERSION
    from device_profiles.files import read_json
    from device_profiles.timeline import Timelines
    from edge_runtime.device.prepare.bundle import open_bundle

    together = Timelines(format_version=FORMAT_VERSION)
    for path in paths:
        file = open_bundle(path).timelines_path() if path.is_dir() else path
        if file is None:
            raise UsageError(f"--timelines {path}: the bundle has none; export it again")
        read = read_json(file, Timelines)
        together = Timelines(
            format_version=FORMAT_VERSION,
            planned=together.planned | read.planned,
            sampled=together.sampled | read.sampled,
        )
    return together


def write_page(path: Path | None, profiles: Sequence[DeviceProfile], compared: Comparison | None = None) -> None:
    """Write the page of profiles, or of what was `compared`, where one is asked for."""
    if path is None:
        return
    from device_profiles.files import atomic_file
    from profiler.report.page import comparison_page, page_of

    page = page_of(profiles) if compared is None else comparison_page(profiles, compared)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    click.echo(f"wrote {path}", err=True)
