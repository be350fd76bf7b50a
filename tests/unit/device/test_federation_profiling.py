"""Orders of a federation to measure a device, without their processes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_profiles.federation import ProfileAnswer, ProfileOrder, SentFile
from edge_runtime.device.federation import profiling
from edge_runtime.device.federation.answers import Answered
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.profiling import start_profile
from edge_runtime.device.limits.endings import Endings
from tests.support.federation_device import FakeChild, fake_device


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    FakeChild.made = []
    monkeypatch.setattr(profiling, "Child", FakeChild)
    return fake_device(tmp_path)


def test_a_device_is_not_measured_where_that_takes_more_memory_than_is_free(device: Device, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(f"MemAvailable: {90 << 10} kB\n")
    found = start_profile(device, ProfileOrder(run="run", files={}), _no_fetch, seconds=5.0, root=tmp_path)
    assert isinstance(found, Answered)
    said = msgspec.json.decode(found.document, type=ProfileAnswer)
    assert said.status == "declined: measuring takes 100 MB, 90 MB are available: end other programs"


def test_the_profiler_is_started_again_after_each_process_that_it_became(device: Device) -> None:
    folder = device.state.task / "endings"
    folder.mkdir(parents=True)
    (folder / "asked").write_text("of an earlier start")
    job = profiling.ProfileJob(device, ProfileOrder(run="run", files={}), seconds=60.0)
    endings = Endings(folder)
    for place, name in enumerate(("grow-block1.train", "grow-block1.bench")):
        assert job.poll() is None and len(FakeChild.made) == place + 1
        child = FakeChild.made[place]
        assert child.limit_bytes == device.budget() and child.command[-2:] == ["--endings", str(folder)]
        assert endings.find(name) is None
        endings.ask(name)
        child.said.write_text(f"said {place}")
        (device.state.task / "complaint.txt").write_text("")
        child.over = True
        assert job.poll() is None
        ending = endings.find(name)
        assert ending is not None and ending.output == f"said {place}" and endings.asked() is None
    FakeChild.made[2].over, FakeChild.made[2].returncode, FakeChild.made[2].words = True, 1, "no such program"
    answered = job.poll()
    assert answered is not None
    assert msgspec.json.decode(answered.document, type=ProfileAnswer).status == "no such program"


def _no_fetch(name: str, path: Path, expected: SentFile) -> None:
    raise AssertionError
