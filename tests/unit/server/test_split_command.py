"""`profl-server split`: its table, its JSON and its picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("matplotlib", reason="pictures are drawn with it")

from device_profiles.errors import DataError, FormatError
from server.cli import cli
from server.data.split_report import ClientPart, SplitReport, report_split
from server.fleet.reading import read_fleet
from server.report.split_picture import draw_split

SVG = "{http://www.w3.org/2000/svg}"


def _fleet(folder: Path, clients: int, data: str) -> Path:
    labels = np.arange(120) % 4
    np.savez(folder / "all.npz", inputs=np.zeros((120, 2, 3), np.float32), labels=labels, client=np.arange(120) % 6)
    text = f"[model]\nname='cnn1d'\ninput_shape=[2, 3]\n[data]\nsources=['npz:{folder / 'all.npz'}']\n{data}\n"
    text += "".join(f"[[clients]]\nname='d{number}'\nlimit_mb=50\n" for number in range(clients))
    (folder / "fleet.toml").write_text(text)
    return folder / "fleet.toml"


def _report(clients: int, classes: int, natural: bool = False) -> SplitReport:
    counts = np.random.default_rng(0).integers(0, 50, (clients, classes)) + 1
    parts = tuple(
        ClientPart(
            client=f"device-{number}",
            natural=f"<person & {number}>" if natural else None,
            examples=int(own.sum()),
            class_counts=tuple(own.tolist()),
            distance=0.1,
        )
        for number, own in enumerate(counts)
    )
    return SplitReport(
        source="npz:all.npz",
        split="iid",
        setting="at random",
        seed=1,
        examples=int(counts.sum()),
        used=int(counts.sum()),
        classes=classes,
        distance_mean=0.1,
        clients=parts,
    )


def test_json_counts_every_example_once(tmp_path: Path) -> None:
    fleet = _fleet(tmp_path, 5, "split='dirichlet'\nalpha=1.0")
    done = CliRunner().invoke(cli, ["split", "--fleet", str(fleet), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["examples"] == report["used"] == 120 and report["classes"] == 4
    assert np.sum([part["class_counts"] for part in report["clients"]], axis=0).tolist() == [30] * 4
    assert [part["client"] for part in report["clients"]] == [f"d{number}" for number in range(5)]
    for part in report["clients"]:
        own = np.array(part["class_counts"])
        assert part["distance"] == pytest.approx(np.abs(own / own.sum() - 0.25).sum() / 2)


def test_the_datas_own_clients_are_named(tmp_path: Path) -> None:
    report = report_split(read_fleet(_fleet(tmp_path, 6, "split='natural'")))
    assert [part.natural for part in report.clients] == list("012345")
    done = CliRunner().invoke(cli, ["split", "--fleet", str(tmp_path / "fleet.toml")])
    assert re.search(r"d5 +20 +2 +0\.50 +5: 1 \(10\), 3 \(10\)", done.stdout)


def test_the_picture_is_a_file_of_its_own_with_every_count(tmp_path: Path) -> None:
    fleet, picture = _fleet(tmp_path, 6, "split='shards'"), tmp_path / "split.svg"
    done = CliRunner().invoke(cli, ["split", "--fleet", str(fleet), "-o", str(picture), "--json"])
    assert done.exit_code == 0
    root = ElementTree.parse(picture).getroot()
    texts = [element.text for element in root.iter(f"{SVG}text")]
    counts = [count for part in json.loads(done.stdout)["clients"] for count in part["class_counts"] if count]
    assert all(str(count) in texts for count in counts)
    assert {f"d{number}" for number in range(6)} <= set(texts)
    assert not re.findall(r'href="(?!#)', picture.read_text())


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (3, 2), (20, 7), (41, 10), (100, 10), (100, 100), (500, 3)])
@pytest.mark.parametrize("natural", [False, True])
def test_any_number_of_clients_and_classes_stays_inside_the_picture(clients: int, classes: int, natural: bool) -> None:
    report = _report(clients, classes, natural)
    drawn = draw_split(report)
    root = ElementTree.fromstring(drawn)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert (left, top, width) == (0, 0, 720) and height < 800
    for element in root.iter(f"{SVG}text"):
        x, y = _place(element)
        assert 0 <= x <= width and 0 <= y <= height
    titles = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert len(titles) == clients
    for part, title in zip(report.clients, titles, strict=True):
        assert title.startswith(part.client) and f"{part.examples} examples" in title
    assert len(drawn) < 1_000_000


def _place(text: ElementTree.Element) -> tuple[float, float]:
    """Where a text of matplotlib's stands: its own coordinates, or what it is moved by before it is turned."""
    if "x" in text.attrib:
        return float(text.attrib["x"]), float(text.attrib["y"])
    x, y = re.findall(r"translate\(([-\d.]+) ([-\d.]+)\)", text.attrib["transform"])[0]
    return float(x), float(y)


def _colours_of_cells(drawn: str) -> list[str]:
    mesh = drawn.split('<g id="QuadMesh_1">')[1].split('<g id="matplotlib.axis')[0]
    return re.findall(r"fill: (#[0-9a-f]{6})", mesh)


def test_every_cell_has_the_shade_of_its_count() -> None:
    report = _report(50, 8)
    cells = _colours_of_cells(draw_split(report))
    counts = [part.class_counts[label] for label in range(8) for part in report.clients]
    assert len(cells) == 50 * 8
    shades = dict(zip(counts, cells, strict=True))
    assert [shades[count] for count in counts] == cells  # the same count, the same shade
    ordered = [_brightness(shades[count]) for count in sorted(shades)]
    assert ordered == sorted(ordered, reverse=True) and ordered[0] > 2 * ordered[-1]


def _brightness(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.3 * red + 0.59 * green + 0.11 * blue


def test_a_class_that_a_client_has_none_of_is_white() -> None:
    report = _report(3, 2)
    first = msgspec.structs.replace(report.clients[0], class_counts=(0, 7))
    report = msgspec.structs.replace(report, clients=(first, *report.clients[1:]))
    drawn = draw_split(report)
    assert len(_colours_of_cells(drawn)) == 5
    assert "device-0: 61 examples; by class 1: 7<" in re.sub(r"device-0: \d+", "device-0: 61", drawn)


def test_a_large_map_is_a_picture_inside_of_the_file_and_the_same_every_time() -> None:
    drawn = draw_split(_report(80, 80))
    assert 'href="data:image/png;base64,' in drawn and drawn.count("href") == drawn.count('="#') + 1
    assert drawn == draw_split(_report(80, 80))


def test_a_split_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    fleet = _fleet(tmp_path, 7, "split='natural'")
    with pytest.raises(DataError, match="the fleet has 7"):
        report_split(read_fleet(fleet))


def test_a_cap_below_the_minimum_is_refused_with_its_place(tmp_path: Path) -> None:
    fleet = _fleet(tmp_path, 2, "min_examples=9\nexamples_per_client=8")
    with pytest.raises(FormatError, match=r"fleet.toml: data: examples_per_client 8 is below min_examples 9$"):
        read_fleet(fleet)


def test_data_that_are_not_there_are_named_with_the_file_and_the_key(tmp_path: Path) -> None:
    path = _fleet(tmp_path, 2, "")
    (tmp_path / "all.npz").unlink()
    error = CliRunner().invoke(cli, ["split", "--fleet", str(path)]).exception
    assert isinstance(error, DataError) and str(error).startswith(f"--fleet {path}: data.sources: none can be read")
