"""`python -m tools.experiments.publish STUDY...`: put what `python -m tools.experiments` wrote into `docs/results.md`.

A study's part of the page lies between `<!-- study NAME -->` and `<!-- end of NAME -->`; the rest of the page is not
touched. Its figures are copied to `docs/pictures/results`, and the numbers of every run to `docs/results/NAME.json`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import msgspec

from device_profiles.errors import FormatError, ProflError
from device_profiles.files import atomic_file, read_json
from tools.experiments.results import StudyResults

PAGE = Path("docs/results.md")
PICTURES = Path("docs/pictures/results")
_PICTURE = re.compile(r"(!\[[^\]]*\]\()([^)/]+\.svg)(\))")


@click.command(epilog="Example: python -m tools.experiments.publish reduced smartwatch")
@click.argument("studies", nargs=-1, required=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/experiments"), show_default=True)
def main(studies: tuple[str, ...], runs: Path) -> None:
    """Replace the parts of STUDIES in docs/results.md."""
    try:
        for study in studies:
            publish(study, runs / study, PAGE, PICTURES)
    except ProflError as error:
        click.echo(f"publish: error: {error}", err=True)
        sys.exit(error.exit_status)


def publish(study: str, folder: Path, page: Path, pictures: Path) -> None:
    """One study; raises FormatError where its results or its place on the page are missing."""
    report = folder / "results.md"
    if not report.is_file():
        raise FormatError(f"{report}: is not there; run `python -m tools.experiments {study} --report-only`")
    text = page.read_text(encoding="utf-8")
    start, end = f"<!-- study {study} -->", f"<!-- end of {study} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise FormatError(f"{page}: needs one line '{start}' and one line '{end}'")
    body = report.read_text(encoding="utf-8")
    named = {name for _, name, _ in _PICTURE.findall(body)}
    place = pictures.relative_to(page.parent).as_posix()
    body = _PICTURE.sub(rf"\g<1>{place}/{study}-\g<2>\g<3>", body)
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob(f"{study}-*.svg"):
        if not _of_another(old.name, study, text):
            old.unlink()
    for name in sorted(named):
        with atomic_file(pictures / f"{study}-{name}") as temporary:
            temporary.write_bytes((folder / name).read_bytes())
    (page.parent / "results").mkdir(exist_ok=True)
    with atomic_file(page.parent / "results" / f"{study}.json") as temporary:
        temporary.write_bytes(_a_line_each(read_json(folder / "results.json", StudyResults)))
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    with atomic_file(page) as temporary:
        temporary.write_text(f"{before}{start}\n{body}{end}{after}", encoding="utf-8")


def _a_line_each(results: StudyResults) -> bytes:
    """The results as JSON with a line for each run, so that a diff shows what changed."""
    encode = msgspec.json.encode
    runs = b",\n".join(encode(run) for run in results.runs)
    return b'{"command": ' + encode(results.command) + b', "runs": [\n' + runs + b"\n]}\n"


def _of_another(name: str, study: str, page: str) -> bool:
    """Whether a picture belongs to a study with a longer name: `reduced-vgg-...` is not one of `reduced`."""
    longer = re.findall(r"<!-- study (\S+) -->", page)
    return any(other != study and other.startswith(f"{study}-") and name.startswith(f"{other}-") for other in longer)


if __name__ == "__main__":
    main()
