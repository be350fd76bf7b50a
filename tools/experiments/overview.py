"""`python -m tools.experiments.overview`: all studies in one table, from `docs/results/*.json` into `docs/results.md`.

The table lies between `<!-- overview -->` and `<!-- end of overview -->`. A row compares `planned` with the others on
the seeds that both have.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from device_profiles.errors import FormatError, ProflError
from device_profiles.files import atomic_file, read_json
from tools.experiments.results import StudyResults

PAGE = Path("docs/results.md")
STUDIES = {
    "smartwatch": "",
    "reduced": "ResNet18, 100 to 900 MB",
    "reduced-100-600": "ResNet18, 100 to 600 MB",
    "reduced-70-320": "ResNet18, 70 to 320 MB",
    "planned-own-promises": "ResNet18, 100 to 900 MB, the runtime's own promises",
    "small-own-promises": "ResNet18, 70 to 320 MB, the runtime's own promises with recomputation",
    "reduced-vgg": "VGG11_bn, 70 to 320 MB",
    "vgg-40-220": "VGG11_bn, 40 to 220 MB",
    "vgg-30-120": "VGG11_bn, 30 to 120 MB",
    "vgg-own-promises": "VGG11_bn, 70 to 320 MB, the runtime's own promises",
    "reduced-100-clients": "ResNet18, 100 clients of 100 to 900 MB, 20 a round, 300 rounds",
}
"""The rows, in their order; a study without a file has none."""
PLANNED = "Planned"
LIMITLESS = "FedAvg without limits"
PROFL = ("ProFL elastic", "ProFL without shrinking")
OTHERS = ("AllSmall", "ExclusiveFL", "HeteroFL", "DepthFL", "FedPMT", "FedPLT")
"""Published methods under the same limits."""
GOAL = 3
"""Points that `planned` shall be above the best of the others."""
FEDAVG_OF = {
    **dict.fromkeys(("reduced-100-600", "reduced-70-320", "planned-own-promises", "small-own-promises"), "reduced"),
    **dict.fromkeys(("vgg-40-220", "vgg-30-120", "vgg-own-promises"), "reduced-vgg"),
}
"""Studies that differ from another one in memory alone, of which FedAvg without limits knows nothing."""
_BESIDE = {"planned-own-promises": "elastic-own-promises"}
"""Studies of the same fleet and settings that have other methods."""

Accuracies = Mapping[int, float]
"""Of a method, in %, by seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One split of one study: the accuracies of its methods."""

    title: str
    methods: Mapping[str, Accuracies]

    @property
    def best(self) -> tuple[str, float, int] | None:
        """The best of the others under the same limits: how far `planned` is above it, on how many common seeds."""
        found = [(name, *self.above(name)) for name in OTHERS if self.common(name)]
        return min(found, key=lambda one: one[1], default=None)

    @property
    def room(self) -> float | None:
        """How many points FedAvg without limits is above the best of the others; None where one of them is missing."""
        if self.best is None or not self.common(LIMITLESS):
            return None
        return self.best[1] - self.above(LIMITLESS)[0]

    def common(self, method: str) -> list[int]:
        """Seeds that `planned` and a method have both."""
        return sorted(set(self.methods.get(PLANNED, {})) & set(self.methods.get(method, {})))

    def above(self, method: str) -> tuple[float, int]:
        """How many points `planned` is above a method, on how many common seeds."""
        seeds = self.common(method)
        both = [statistics.mean(self.methods[name][seed] for seed in seeds) for name in (PLANNED, method)]
        return both[0] - both[1], len(seeds)


@click.command(epilog="Example: python -m tools.experiments.overview")
def main() -> None:
    """Write the table of all studies into docs/results.md."""
    try:
        write_overview(PAGE)
    except ProflError as error:
        click.echo(f"overview: error: {error}", err=True)
        sys.exit(error.exit_status)


def write_overview(page: Path) -> None:
    """Replace the table; raises FormatError where its place on the page is missing."""
    text = page.read_text(encoding="utf-8")
    start, end = "<!-- overview -->", "<!-- end of overview -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise FormatError(f"{page}: needs one line '{start}' and one line '{end}'")
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    table = "\n".join(overview(list(compared(page.parent / "results"))))
    with atomic_file(page) as temporary:
        temporary.write_text(f"{before}{start}\n{table}\n{end}{after}", encoding="utf-8")


def compared(folder: Path) -> Iterator[Compared]:
    """A row for each split of the studies that have a file in `folder`."""
    for study, title in STUDIES.items():
        splits = _by_method(folder / f"{study}.json")
        limitless = _by_method(folder / f"{FEDAVG_OF.get(study, study)}.json")
        beside = _by_method(folder / f"{_BESIDE[study]}.json") if study in _BESIDE else {}
        for split, methods in splits.items():
            methods = beside.get(split, {}) | methods
            if study in FEDAVG_OF:
                methods = {LIMITLESS: limitless[split][LIMITLESS], **methods}
            yield Compared(title=f"{title}, {split}" if title else split, methods=methods)


def _by_method(path: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Accuracies by split, method and seed; nothing where there is no file."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for run in read_json(path, StudyResults).runs if path.is_file() else ():
        found.setdefault(run.split, {}).setdefault(run.method, {})[run.seed] = 100 * run.accuracy
    return found


def overview(rows: Sequence[Compared]) -> list[str]:
    """The lines of the table."""
    columns = (*PROFL, *OTHERS, LIMITLESS)
    lines = [
        f"| | `planned` | {' | '.join(columns)} | over the best under the same limits | against {LIMITLESS} |",
        f"|{'---|' * (len(columns) + 4)}",
    ]
    for row in rows:
        if not row.methods.get(PLANNED):
            continue
        seeds = len(row.methods[PLANNED])
        cells = [_cell(row.methods.get(name, {}), seeds) for name in columns]
        best = row.best
        over = "" if best is None else f"{_difference(best[1])} ({', '.join((best[0], *_fewer(best[2], seeds)))})"
        lost = "" if not row.common(LIMITLESS) else _difference(row.above(LIMITLESS)[0])
        mean = statistics.mean(row.methods[PLANNED].values())
        own = " ".join((f"**{mean:.1f}**", *(f"({said})" for said in _fewer(seeds, _ALL_SEEDS))))
        lines.append(f"| {row.title} | {own} | {' | '.join(cells)} | {over} | {lost} |")
    rooms = [room for row in rows if (room := row.room) is not None]
    narrow = sum(room < GOAL for room in rooms)
    return [
        *lines,
        "",
        f"In {narrow} of {len(rooms)} rows not even {LIMITLESS} is {GOAL} points above the best published method under "
        "the same limits.",
    ]


_ALL_SEEDS = 3


def _cell(accuracies: Accuracies, seeds: int) -> str:
    if not accuracies:
        return ""
    mean = f"{statistics.mean(accuracies.values()):.1f}"
    return " ".join((mean, *(f"({said})" for said in _fewer(len(accuracies), seeds))))


def _difference(points: float) -> str:
    shown = f"{points:+.1f}"
    return shown if float(shown) else "0.0"


def _fewer(seeds: int, of: int) -> list[str]:
    """How many seeds there are, where they are not all."""
    return [] if seeds >= of else ["1 seed" if seeds == 1 else f"{seeds} seeds"]


if __name__ == "__main__":
    main()
