"""`profl-profile predict`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edge_runtime.device.commands.options import FILE, json_option, megabytes, print_json
from edge_runtime.device.worker.text import megabytes_up
from profiler.commands.options import read_profiles


@click.command(epilog="Example: profl-profile predict bundles/batch64 --profile phone.json")
@click.argument("bundle", type=FILE)
@click.option("--profile", type=FILE, required=True, help="Profile of the device; any bundle may have been measured.")
@click.option(
    "--examples",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of examples of a large data set (many thousands).",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Number of threads [default: that of the profile].")
@json_option
def predict(bundle: Path, profile: Path, examples: int, threads: int | None, as_json: bool) -> None:
    """Predict the peak of every training program of BUNDLE on a profiled device, without running it.

    The promise is that of `profl-server plan`: of the measurement, where the profile has measured the program.
    """
    from device_profiles.predict import predict as predict_peak
    from device_profiles.promise import DEFAULT_MARGIN, margin_text
    from device_profiles.promised import promised
    from edge_runtime.device.prepare.bundle import open_bundle

    (known,) = read_profiles([profile])
    opened = open_bundle(bundle)
    programs = [p for p in opened.manifest.programs if p.work.trains]
    found = [
        (
            predict_peak(program, known, examples=examples, threads=threads),
            promised(program, known, bundle_sha256=opened.digest, examples=examples, threads=threads),
        )
        for program in programs
    ]
    if as_json:
        predictions = [
            msgspec.structs.asdict(one) | {"promise_bytes": promise.bytes, "measured": promise.measured}
            for one, promise in found
        ]
        print_json({"predictions": predictions, "promise_margin": DEFAULT_MARGIN})
        return
    click.echo(f"{'program':<28}{'predicted':>12}{'promise':>12}{'base':>12}{'plan':>12}")
    for one, promise in found:
        click.echo(
            f"{one.program:<28}{megabytes_up(one.peak_bytes):>12}{megabytes_up(promise.bytes):>12}"
            f"{megabytes(one.base_bytes):>12}{megabytes(one.plan_bytes):>12}"
            f"{'  measured' if promise.measured else ''}"
        )
    if found:
        click.echo(f"calibrated by {', '.join(found[0][0].calibrated_by)} of {known.device.name}")
        click.echo(f"promises are {margin_text(DEFAULT_MARGIN)}")
