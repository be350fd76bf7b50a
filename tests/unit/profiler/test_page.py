"""The page of a profile: complete, self-contained, safe for any text, and drawn by a real browser."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from device_profiles.contract import FORMAT_VERSION
from device_profiles.files import read_json, write_json
from device_profiles.pages import POLICY, page_style
from device_profiles.profile import Cost, DeviceProfile
from device_profiles.timeline import PlanTimeline, Timeline, Timelines
from profiler.cli import main
from profiler.report.charts import COLOURS, MEASURED, NARROW, WIDE, scatter, stacked_bars, step_timeline
from profiler.report.page import page_of

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
MB = 1 << 20
PLAN = PlanTimeline(
    work=(0.0, 0.3, 0.8),
    parameters_bytes=(8 * MB, 8 * MB, 8 * MB),
    optimizer_state_bytes=(8 * MB, 8 * MB, 8 * MB),
    activations_bytes=(4 * MB, 20 * MB, 2 * MB),
    gradients_bytes=(0, 0, 8 * MB),
    temporaries_bytes=(2 * MB, 4 * MB, 0),
    touched_bytes=(22 * MB, 40 * MB, 40 * MB),
)
TIMELINE = Timeline(
    seconds=(0.0, 0.5, 0.6, 0.9, 1.5),
    resident_bytes=(10 * MB, 36 * MB, 60 * MB, 75 * MB, 77 * MB),
    step_started_seconds=0.5,
    step_ended_seconds=1.5,
)


def _cost(**changes: object) -> Cost:
    base = read_json(GOLDEN / "profile.json", DeviceProfile).costs[0]
    drawn = msgspec.structs.replace(
        base,
        batch=32,
        base_bytes=36 * MB,
        arena_bytes=40 * MB,
        parameters_bytes=8 * MB,
        optimizer_state_bytes=8 * MB,
        activations_bytes=20 * MB,
        temporaries_bytes=4 * MB,
        gradients_bytes=0,
        frozen_bytes=0,
        workspace_bytes=MB,
        staging_bytes=0,
        predicted_peak_bytes=77 * MB,
        measured_peak_bytes=77 * MB + 1000,
        unexplained_bytes=1000,
        timeline=TIMELINE,
        plan=PLAN,
    )
    return msgspec.structs.replace(drawn, **changes)


def _profile(*costs: Cost) -> DeviceProfile:
    profile = msgspec.structs.replace(read_json(GOLDEN / "profile.json", DeviceProfile), costs=costs or (_cost(),))
    profile.check("drawn")
    return profile


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_from_anywhere() -> None:
    page = page_of([_profile()])
    parser = _Tags()
    parser.feed(page)
    assert "default-src 'none'" in page
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in parser.tags}
    assert not [a for _, attributes in parser.tags for a in attributes if a in ("src", "href", "srcset")]
    assert not re.findall(r"url\(|@import|https?://", page)


def test_the_page_of_a_comparison_says_what_differs_before_it_draws(tmp_path: Path) -> None:
    first, second = _profile(), _profile(_cost(measured_peak_bytes=97 * MB, unexplained_bytes=20 * MB))
    for name, profile in (("a", first), ("b", second)):
        write_json(tmp_path / f"{name}.json", profile)
    page = tmp_path / "page.html"
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<h1>Device profiles compared</h1>" in text
    assert '<td class="number" data-title="golden">77.0' in text
    assert '<td class="number marked" data-title="golden (2)">97.0*' in text
    assert text.index("97.0*") < text.index("<svg")
    assert text.count("<svg") == 4  # two profiles, each for a screen and for a phone


def test_a_narrow_picture_keeps_the_size_of_its_text() -> None:
    wide, narrow = (stacked_bars([_cost()], None, width=width) for width in (WIDE, NARROW))
    assert f'width="{WIDE}"' in wide and f'width="{NARROW}"' in narrow
    ends = [float(x) + float(w) for x, w in re.findall(r'<rect x="([\d.]+)"[^>]*width="([\d.]+)"', narrow)]
    assert max(ends) < NARROW
    assert f'width="{NARROW}"' in step_timeline(_cost(), TIMELINE, PLAN, width=NARROW)


def test_pages_of_devices_and_of_the_server_are_one_family() -> None:
    pytest.importorskip("jinja2", reason="the server's pages are templates of Jinja")
    from server.report.rendering import render

    frame = render("page.html")
    for text in (page_style(), POLICY, '<meta name="viewport"', '<meta name="color-scheme" content="light dark">'):
        assert text in page_of([_profile()]) and text in frame


def test_texts_of_strangers_are_escaped() -> None:
    evil = "<script>alert(1)</script>\"'&"
    killed = _cost(fits=False, measured_peak_bytes=None, unexplained_bytes=None, reason=evil)
    profile = _profile(_cost(program=evil), killed)
    profile = msgspec.structs.replace(
        profile,
        model=evil,
        software={evil: evil},
        device=msgspec.structs.replace(profile.device, name=evil, cpu_model=evil, kernel=evil),
    )
    page = page_of([profile])
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_bar_is_as_long_as_its_parts_and_the_measurement_stands_at_its_place() -> None:
    picture = stacked_bars([_cost()], None)
    widths = [float(w) for w in re.findall(r'<rect x=[^>]*width="([\d.]+)"', picture)]
    start = float(re.findall(r'<rect x="([\d.]+)"', picture)[0])
    mark = float(re.findall(rf'<line x1="([\d.]+)"[^>]*stroke="{MEASURED}"', picture)[0])
    assert len(widths) == 6
    assert mark == pytest.approx(start + sum(widths), abs=0.5)


def test_what_no_part_explains_is_drawn_as_such() -> None:
    more = _cost(measured_peak_bytes=97 * MB, unexplained_bytes=20 * MB)
    assert "unexplained: 20.00 MB" in stacked_bars([more], None)
    less = _cost(measured_peak_bytes=76 * MB, unexplained_bytes=-MB)
    assert "unexplained" not in stacked_bars([less], None)


def test_a_limit_and_what_does_not_fit_are_drawn() -> None:
    killed = _cost(fits=False, measured_peak_bytes=None, unexplained_bytes=None, reason="killed", died_at_bytes=64 * MB)
    picture = stacked_bars([killed], 64 * MB)
    assert 'class="limit"' in picture and "does not fit (died at 64)" in picture


def test_the_step_is_drawn_with_its_composition_below_the_measured_line() -> None:
    picture = step_timeline(_cost(), TIMELINE, PLAN)
    for part in ("runtime base", "parameters", "optimizer state", "activations", "gradients", "temporaries"):
        assert f'fill="{COLOURS[part]}"' in picture
    assert f'stroke="{MEASURED}"' in picture and "1000 ms" in picture and 'class="touched"' in picture


def test_a_plan_that_no_sample_belongs_to_is_drawn_over_a_usual_step() -> None:
    picture = step_timeline(_cost(timeline=None, step_seconds_median=0.25), None, PLAN)
    assert f'fill="{COLOURS["activations"]}"' in picture and "250 ms" in picture
    assert f'stroke="{MEASURED}"' not in picture
    assert step_timeline(_cost(timeline=None, plan=None), None, None) == ""


def test_a_profile_is_drawn_with_the_timelines_of_a_file(tmp_path: Path) -> None:
    profile = _profile()
    bare = profile.without_timelines()
    assert all(cost.plan is None and cost.timeline is None for cost in bare.costs)
    assert "One step over time" not in page_of([bare])
    write_json(tmp_path / "bare.json", bare)
    write_json(tmp_path / "timelines.json", profile.timelines)
    page = tmp_path / "page.html"
    drawn = ["--html", str(page), "--timelines", str(tmp_path / "timelines.json")]
    assert main(["show", str(tmp_path / "bare.json"), *drawn]) == 0
    assert page.read_text(encoding="utf-8") == page_of([profile])


def test_timelines_that_do_not_fit_the_profile_are_refused_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = _profile()
    write_json(tmp_path / "bare.json", profile.without_timelines())
    other = msgspec.structs.replace(PLAN, touched_bytes=tuple(1 << 50 for _ in PLAN.work))
    name = profile.costs[0].program
    write_json(tmp_path / "timelines.json", Timelines(format_version=FORMAT_VERSION, planned={name: other}))
    assert main(["show", str(tmp_path / "bare.json"), "--timelines", str(tmp_path / "timelines.json")]) != 0
    assert "does not fit the arena" in capsys.readouterr().err


def test_without_a_plan_or_a_marked_step_the_measured_line_alone_is_drawn() -> None:
    line = msgspec.structs.replace(TIMELINE, step_started_seconds=None, step_ended_seconds=None)
    picture = step_timeline(_cost(), line, PLAN)
    assert f'stroke="{MEASURED}"' in picture and "polygon" not in picture


def test_the_scatter_puts_what_was_predicted_right_on_the_line() -> None:
    picture = scatter([("a", 50 * MB, 50 * MB), ("b", 100 * MB, 90 * MB)])
    spots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', picture)]
    diagonal = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="even"', picture)[0]
    x1, y1, x2, y2 = map(float, diagonal)
    slope = (y2 - y1) / (x2 - x1)
    assert spots[0][1] == pytest.approx(y1 + slope * (spots[0][0] - x1), abs=0.5)
    assert spots[1][1] > y1 + slope * (spots[1][0] - x1) + 5


def test_the_page_is_drawn_by_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("drawing the page needs chromium: apt-get install chromium")
    profile = tmp_path / "profile.json"
    write_json(profile, _profile())
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    assert main(["show", str(profile), "--html", str(page)]) == 0
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    flags.append(f"--user-data-dir={tmp_path / 'browser'}")
    command = [browser, *flags, "--window-size=1000,1500", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    seen = _colours(picture)
    for name in ("runtime base", "parameters", "optimizer state", "activations", "gradients", "temporaries"):
        assert seen.get(_rgb(COLOURS[name]), 0) > 200, f"{name} is not on the page"
    assert seen.get(_rgb(MEASURED), 0) > 50
    command = [browser, *flags, "--dump-dom", page.as_uri()]
    dumped = subprocess.run(command, capture_output=True, timeout=120, check=True)
    assert dumped.stdout.count(b"<svg") == 5 and b"grow-block1" in dumped.stdout


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _colours(path: Path) -> dict[tuple[int, int, int], int]:
    """How many pixels a PNG of 8-bit RGB or RGBA has of each colour; read by hand, so that no package is needed."""
    data, at, packed, width, channels = path.read_bytes(), 8, b"", 0, 3
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, channels = struct.unpack(">I", body[:4])[0], {2: 3, 6: 4}[body[9]]
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    raw, stride = zlib.decompress(packed), width * channels
    counts: dict[tuple[int, int, int], int] = {}
    previous = bytearray(stride)
    for start in range(0, len(raw), stride + 1):
        row = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), previous, channels)
        for x in range(0, stride, channels * 2):
            pixel = (row[x], row[x + 1], row[x + 2])
            counts[pixel] = counts.get(pixel, 0) + 2
        previous = row
    return counts


def _unfiltered(kind: int, row: bytearray, above: bytearray, step: int) -> bytearray:
    for i in range(len(row)):
        left = row[i - step] if i >= step else 0
        up, corner = above[i], above[i - step] if i >= step else 0
        if kind == 4:
            guess = left + up - corner
            best = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
        else:
            best = (0, left, up, (left + up) // 2)[kind]
        row[i] = (row[i] + best) & 255
    return row
