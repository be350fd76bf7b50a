"""`profl-profile run`, which `profl-profile BUNDLE` is short for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from device_profiles.work import MEASURED_KINDS
from edge_runtime.device.commands.options import FILE, print_json, thread_count
from edge_runtime.options import OutputFile
from profiler.commands.options import html_option, limit_option, measuring_options, model_choice, write_page

_PURPOSES: dict[str, tuple[str, ...]] = {**{kind: (kind,) for kind in MEASURED_KINDS}, "all": MEASURED_KINDS}


@click.command(epilog="Example: profl-profile bundles/resnet18 --limit 128MB -o phone.json")
@click.argument("bundle", type=FILE, required=False)
@limit_option
@click.option(
    "--purpose",
    "purposes",
    type=click.Choice(list(_PURPOSES)),
    multiple=True,
    default=["grow"],
    show_default=True,
    help="Programs to measure; may be repeated.",
)
@click.option(
    "--no-cached-prefix",
    "cached_prefix",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Skip programs that read the outputs of frozen blocks from a cache.",
)
@click.option("--repetitions", type=click.IntRange(1), default=1, show_default=True, help="Processes for each program.")
@click.option(
    "-o", "--output", type=OutputFile(), default=Path("profile.json"), show_default=True, help="Profile to write."
)
@click.option(
    "--timelines",
    type=OutputFile(),
    help="Also write memory over a step, planned and sampled, of what is measured: for `show --timelines`.",
)
@click.option("--endings", type=FILE, hidden=True, help="Folder of who starts this command again after each process.")
@html_option
@measuring_options
def run(
    bundle: Path | None,
    purposes: tuple[str, ...],
    threads: int | None,
    timelines: Path | None,
    html: Path | None,
    as_json: bool,
    batch: int,
    model: str | None,
    width: int | None,
    input_text: str,
    classes: int,
    blocks: int | None,
    **options: Any,
) -> None:
    """Measure each program of BUNDLE in fresh processes, and write a profile.

    The profile is saved after every program. Repeat the command to continue an interrupted profile.
    """
    from device_profiles.files import write_json
    from profiler.profiling.profile import ProfileRequest, profile_bundle
    from profiler.profiling.subject import model_subject
    from profiler.report.table import profile_table

    choice = model_choice(
        [bundle] if bundle is not None else [],
        runtime=options["runtime"],
        model=model,
        width=width,
        input_text=input_text,
        classes=classes,
        blocks=blocks,
    )
    asked = tuple(dict.fromkeys(kind for name in purposes for kind in _PURPOSES[name]))
    request = ProfileRequest(bundle=bundle, kinds=asked, threads=thread_count(threads), **options)
    subject = model_subject(choice, batch) if choice is not None else None
    profile = profile_bundle(request, subject=subject, progress=lambda line: click.echo(line, err=True))
    if timelines is not None:
        write_json(timelines, profile.timelines)
        click.echo(f"wrote {timelines}", err=True)
    write_page(html, [profile])
    if as_json:
        print_json(profile.without_timelines())
    else:
        click.echo(profile_table(profile))
