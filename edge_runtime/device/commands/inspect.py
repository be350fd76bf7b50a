"""`profl-edge inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.device.commands.options import (
    FILE,
    bundle_argument,
    json_option,
    megabytes,
    print_json,
    thread_count,
    threads_option,
)
from edge_runtime.device.worker.text import megabytes_up

if TYPE_CHECKING:
    from device_profiles.manifest import Manifest, Program
    from device_profiles.profile import DeviceProfile


@click.command(epilog="Example: profl-edge inspect BUNDLE --profile phone.json")
@bundle_argument
@click.option("--profile", "profile_path", type=FILE, help="Device profile; the promise on that device is shown.")
@threads_option
@json_option
def inspect(bundle: Path, profile_path: Path | None, threads: int | None, as_json: bool) -> None:
    """Show blocks, programs and memory plan of BUNDLE; with a profile, also the promise on that device."""
    from device_profiles.errors import UsageError
    from device_profiles.files import read_json
    from device_profiles.profile import DeviceProfile
    from device_profiles.promise import DEFAULT_MARGIN
    from edge_runtime.device.prepare.bundle import open_bundle

    opened = open_bundle(bundle)
    profile = read_json(profile_path, DeviceProfile) if profile_path is not None else None
    if profile is not None and profile.bundle_sha256 != opened.digest:
        raise UsageError(
            "was measured with another bundle", field="profile", value=profile_path, remedy="profile this one again"
        )
    manifest = opened.manifest
    # A profile was measured with its own number of threads; its promise holds for those.
    count = profile.measurement.threads if profile is not None else thread_count(threads)
    document = {
        "model": manifest.model.name,
        "input_shape": manifest.model.input_shape,
        "classes": manifest.model.classes,
        "bundle_sha256": opened.digest,
        "threads": count,
        "blocks": _blocks(manifest),
        "programs": [_program(program, count, profile, opened.digest) for program in manifest.programs],
    }
    if profile is not None:
        document["promise_margin"] = DEFAULT_MARGIN
    if as_json:
        print_json(document)
    else:
        _print_tables(document)


def _blocks(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "block": block.index,
            "units": [unit.name for unit in manifest.model.units[block.first_unit : block.last_unit + 1]],
            "parameter_bytes": sum(
                unit.parameter_bytes for unit in manifest.model.units[block.first_unit : block.last_unit + 1]
            ),
        }
        for block in manifest.partition.blocks
    ]


def _program(program: Program, threads: int, profile: DeviceProfile | None, digest: str) -> dict[str, Any]:
    import msgspec

    memory = program.memory
    entry = {
        "program": program.name,
        "work": program.work.name,
        "purpose": program.work.kind,
        "block": program.block,
        "variant": program.variant,
        "batch": program.batch,
        "memory": msgspec.structs.asdict(memory),
        "arena_per_live": memory.arena_bytes / memory.live_bytes if memory.live_bytes else None,
        "total_bytes": memory.total_bytes(threads),
    }
    cost = profile.cost(program.name) if profile is not None else None
    if cost is not None:
        entry |= {
            "predicted_peak_bytes": cost.predicted_peak_bytes,
            "measured_peak_bytes": cost.measured_peak_bytes,
            "fits": cost.fits,
        }
    if profile is not None and (cost is not None or program.work.trains):
        from device_profiles.promised import promised

        one = promised(program, profile, bundle_sha256=digest)
        entry |= {"promise_bytes": one.bytes, "measured": one.measured}
    return entry


def _print_tables(document: dict[str, Any]) -> None:
    from device_profiles.promise import margin_text

    margin = document.get("promise_margin")
    shape = "x".join(map(str, document["input_shape"]))
    click.echo(f"{document['model']}, input {shape}, {document['classes']} classes, {document['threads']} threads")
    for block in document["blocks"]:
        click.echo(f"block {block['block']}: {', '.join(block['units'])} ({megabytes(block['parameter_bytes'])})")
    width = max((len(entry["program"]) for entry in document["programs"]), default=0) + 2
    header = f"{'program':<{width}}{'arena':>12}{'arena/live':>12}{'frozen':>12}{'total':>12}"
    click.echo(header + ("  promise" if margin is not None else ""))
    for entry in document["programs"]:
        memory, ratio = entry["memory"], entry["arena_per_live"]
        row = f"{entry['program']:<{width}}{megabytes(memory['arena_bytes']):>12}"
        row += f"{ratio:>12.3f}" if ratio is not None else f"{'-':>12}"
        row += f"{megabytes(memory['frozen_bytes']):>12}{megabytes(entry['total_bytes']):>12}"
        if "promise_bytes" in entry:
            said = ("" if entry["fits"] else ", does not fit") if entry["measured"] else ", predicted"
            row += f"  {megabytes_up(entry['promise_bytes'])}{said}"
        elif margin is not None:
            row += "  not measured"
        click.echo(row)
    if margin is not None:
        click.echo(f"promises are {margin_text(margin)}")
