"""What verification costs of an export, in seconds of the processor.

    python -m tools.bench.verification --model resnet18 --model vgg11_bn:16

exports every model (`NAME` or `NAME:WIDTH`) some times with verification and without it, in turns, and takes medians.
The start (loading torch and executorch, which every command does once) is measured first, as this process does it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click


def loaded() -> float:
    """Seconds that loading everything that an export needs takes."""
    begin = time.process_time()
    import edge_runtime.export.emit.pte
    import edge_runtime.export.targets.native
    import edge_runtime.export.verify.verify  # noqa: F401  # the three load torch, executorch and the native module

    return time.process_time() - begin


def exported(model: str, width: int | None, *, verify: bool) -> float:
    """Seconds of one export."""
    from edge_runtime.export.commands.model_options import asked_or_usual
    from edge_runtime.export.targets.native import export_bundle

    shape, classes = asked_or_usual(model, None, None)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        export_bundle(model, Path(folder) / "bundle", width=width, input_shape=shape, classes=classes, verify=verify)
        return time.process_time() - begin


@click.command(epilog="Example: python -m tools.bench.verification --model resnet18 --model resnet18:16")
@click.option(
    "--model", "models", multiple=True, required=True, help="Built-in model, or MODEL:WIDTH. May be repeated."
)
@click.option("--repetitions", type=click.IntRange(1), default=3, show_default=True)
def main(models: tuple[str, ...], repetitions: int) -> None:
    """Print a row a model."""
    start = loaded()
    exported("cnn", 4, verify=True)  # what PyTorch does once in a process
    click.echo("| model | start, s | export, s | verification, s | of the export | of the command |")
    click.echo("|---|---|---|---|---|---|")
    for text in models:
        model, _, width = text.partition(":")
        pairs = [
            [exported(model, int(width) if width else None, verify=verify) for verify in (False, True)]
            for _ in range(repetitions)
        ]
        plain = statistics.median(without for without, _ in pairs)
        cost = statistics.median(whole - without for without, whole in pairs)
        click.echo(
            f"| {text} | {start:.1f} | {plain:.1f} | {cost:.1f} | {cost / plain:.0%} | {cost / (start + plain):.0%} |"
        )


if __name__ == "__main__":
    main()
