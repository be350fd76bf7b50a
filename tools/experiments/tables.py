"""Tables and figures of a study: `results.md`, and an SVG for every split and figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from device_profiles.files import atomic_file
from server.report.drawing import COLOURS, svg
from server.report.figures import (
    effective_movement,
    measure_over_device_seconds,
    measure_over_rounds,
    memory,
    participation,
)
from server.report.runs import Run, read_run
from tools.experiments.results import Outcome
from tools.experiments.study import Study, run_folder, slug

_MB = float(1 << 20)


def write_report(
    study: Study, outcomes: Sequence[Outcome], folder: Path, command: str, published: Path | None = None
) -> None:
    """Write everything below `folder`. Pictures of a run that is not there are those at `published` plus their own
    names, where there are any."""
    machines = list(dict.fromkeys(outcome.machine for outcome in outcomes))
    planned = len(study.seeds) * len(study.splits) * len(study.methods)
    finished = "" if len(outcomes) == planned else f"**{len(outcomes)} of {planned} runs are finished.** "
    lines = [
        f"## {study.title}",
        "",
        study.about,
        "",
        f"Command: `{command}`. {_named(machines)} "
        f"Accuracy on the whole test set after the last round: mean and standard deviation over seeds. "
        f"Device-seconds are processor time of one thread. {finished}",
    ]
    for split in study.splits:
        own = [outcome for outcome in outcomes if outcome.split == split]
        if not own:
            continue
        lines += ["", f"### {split}", "", *_table(study, own, machines)]
        for name, title, picture in _pictures(study, own, folder, published):
            path = folder / f"{slug(split)}-{name}.svg"
            with atomic_file(path) as temporary:
                temporary.write_text(picture, encoding="utf-8")
            lines += ["", f"![{split}: {title}]({path.name})"]
    with atomic_file(folder / "results.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pictures(
    study: Study, own: Sequence[Outcome], folder: Path, published: Path | None
) -> Iterator[tuple[str, str, str]]:
    """Name, title and SVG for one split: all methods together, then how a run of the first one came about."""
    yield "rounds", "accuracy over rounds", svg(_curves(study, own, "round", 0))
    yield "device-seconds", "accuracy over device-seconds", svg(_curves(study, own, "device-seconds, all clients", 1))
    split, first = own[0].split, next(iter(study.methods))
    seeds = [outcome.seed for outcome in own if outcome.method == first]
    there = next((seed for seed in seeds if (folder / run_folder(split, first, seed)).is_dir()), None)
    run = None if there is None else read_run(folder / run_folder(split, first, there))
    for name, (title, drawn) in _OF_A_RUN.items():
        if run is not None:
            yield name, title.format(f"of {first}, seed {there}"), svg(drawn(run))
        elif published is not None and seeds:
            # What is known from docs/results alone has its rounds on another machine, and its pictures in docs.
            path = published.with_name(f"{published.name}-{slug(split)}-{name}.svg")
            if path.is_file():
                yield name, title.format(f"of {first}, seed {seeds[0]}"), path.read_text(encoding="utf-8")


_OF_A_RUN: Mapping[str, tuple[str, Callable[[Run], Figure]]] = {
    "steps": ("accuracy over rounds {}, with its steps", lambda run: measure_over_rounds([run])),
    "steps-device-seconds": (
        "accuracy over device-seconds {}, with its steps",
        lambda run: measure_over_device_seconds([run]),
    ),
    "movement": ("effective movement {}, with the fitted slope", effective_movement),
    "participation": ("clients with work in every step {}", participation),
    "memory": ("largest promise of every step {}", memory),
}
"""Name, title and figure of one run of the first method; the title is completed by which one it is."""


def _named(machines: Sequence[str]) -> str:
    """The machines that device-seconds are of: rows of the second one name it."""
    if len(machines) == 1:
        return f"Machine: {machines[0]}."
    others = "; ".join(f"machine {number}: {name}" for number, name in enumerate(machines[1:], start=2))
    return f"Machine: {machines[0]}; {others}."


def _table(study: Study, outcomes: Sequence[Outcome], machines: Sequence[str]) -> list[str]:
    target = f"rounds / device-seconds to {study.target_accuracy:.0%}"
    lines = [
        f"| method | accuracy, % | seeds | clients with work | largest promise, MB | MB a round | {target} |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in study.methods:
        own = [outcome for outcome in outcomes if outcome.method == method]
        if own:
            lines.append(_row(method, own, machines))
    return lines


def _row(method: str, own: Sequence[Outcome], machines: Sequence[str]) -> str:
    accuracies = [100 * outcome.accuracy for outcome in own]
    spread = f" ± {statistics.stdev(accuracies):.1f}" if len(own) > 1 else ""
    reached = [outcome.target for outcome in own if outcome.target is not None]
    when = "never"
    if reached:
        when = f"{statistics.mean(r for r, _ in reached):.0f} / {statistics.mean(s for _, s in reached):.0f}"
        when += "" if len(reached) == len(own) else f" ({len(reached)} of {len(own)} seeds)"
        places = dict.fromkeys(machines.index(outcome.machine) + 1 for outcome in own)
        when += "".join(f" (machine {place})" for place in places if place > 1)
    return (
        f"| {method} | {statistics.mean(accuracies):.1f}{spread} | {len(own)} "
        f"| {statistics.mean(o.participation for o in own):.0%} "
        f"| {max(o.promise_bytes for o in own) / _MB:.0f} "
        f"| {statistics.mean(o.bytes_a_round for o in own) / _MB:.1f} | {when} |"
    )


def _curves(study: Study, outcomes: Sequence[Outcome], x: str, position: int) -> Figure:
    """Mean accuracy over the seeds, with the range between the least and the most as a band."""
    figure = Figure(figsize=(9.0, 4.2))
    axes: Any = figure.subplots()
    for number, method in enumerate(study.methods):
        own = [outcome for outcome in outcomes if outcome.method == method]
        if not own:
            continue
        grid = np.linspace(max(o.curve[0][position] for o in own), min(o.curve[-1][position] for o in own), num=80)
        values = np.array([np.interp(grid, [p[position] for p in o.curve], [p[2] for p in o.curve]) for o in own])
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(grid, values.mean(0), color=colour, label=method, linewidth=2.2 if number == 0 else 1.4)
        axes.fill_between(grid, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0)
    axes.set_xlabel(x)
    axes.set_ylabel("test accuracy")
    axes.set_ylim(0, 1)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure
