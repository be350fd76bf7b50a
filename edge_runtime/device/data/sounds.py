"""`wav:DIR`: one folder per class of WAV files; log-mel features, float32 [mels, frames], made once.

All files have the sample rate `rate` (16000). `seconds` (1) are taken from the start of each, a shorter one is followed
by silence; several channels become their mean. `mels` (40) bands lie between 20 Hz and half the sample rate.
`log_mel.py` says how they are computed.
"""

from __future__ import annotations

import struct
import wave
from array import array
from pathlib import Path
from typing import Any, NamedTuple

from device_profiles.errors import DataError, UsageError
from device_profiles.extras import extra_remedy
from edge_runtime.device.data.arrays import ArraySource
from edge_runtime.device.data.class_folders import Kind, files_of_classes
from edge_runtime.device.data.log_mel import LogMel
from edge_runtime.device.data.query import place_and_options, whole_number
from edge_runtime.device.data.source import Split, unpacked

_KIND = Kind(frozenset((".wav", ".wave")), "WAV file", "WAV files", "wav:DIR", ".wav")
_OPTIONS = {"rate": "rate=16000", "seconds": "seconds=1", "mels": "mels=40"}


class _Form(NamedTuple):
    """What is taken of each file."""

    rate: int
    samples: int
    mels: int


def open_sounds(location: str, spec: str, split: Split) -> ArraySource:
    """Compute the features of a split. Raises UsageError for an option that is none, DataError, with the file, for one
    that is not read or has another sample rate, and where numpy is missing."""
    folder, options = place_and_options(location, spec, _OPTIONS)
    form = _form(options, spec)
    try:
        make = LogMel(form.rate, form.mels)
    except ImportError:
        raise DataError(f"{folder}: features of sounds require numpy", remedy=extra_remedy("audio")) from None
    found = files_of_classes(folder, split, _KIND)
    spool = unpacked(make.features(_samples(path, form)).tobytes() for path in found.files)
    shape = (len(found.files), form.mels, make.frames(form.samples))
    labels: array[Any] = array("q", found.labels)
    source = ArraySource(spool, 0, shape, "float32", labels, 0, str(found.root), found.clients)
    source.classes = found.classes
    return source


def _form(options: dict[str, str], spec: str) -> _Form:
    rate = whole_number(options, "rate", 16000, spec, least=1000)
    mels = whole_number(options, "mels", 40, spec)
    try:
        samples = round(float(options.get("seconds", "1")) * rate)
    except (ValueError, OverflowError):
        samples = 0
    if not rate // 20 <= samples <= 600 * rate:
        raise UsageError(
            f"'seconds={options['seconds']}' is not between 0.05 and 600", field="data", value=spec, remedy="correct it"
        )
    return _Form(rate, samples, mels)


def _samples(path: Path, form: _Form) -> array[float]:
    """The first samples of a file, between -1 and 1, followed by zeros where it is shorter."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if rate != form.rate:
                raise DataError(
                    f"{path}: has {rate} samples a second", remedy=f"write wav:DIR?rate={rate}, or convert it"
                )
            values = _numbers(file.readframes(form.samples), width, path)
    except (OSError, EOFError, wave.Error, struct.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "ends early"
        raise DataError(f"{path}: not a readable WAV file of whole numbers (PCM): {reason}") from None
    mixed = array("f", (sum(values[at : at + channels]) / channels for at in range(0, len(values), channels)))
    return mixed + array("f", bytes(4 * (form.samples - len(mixed))))


def _numbers(frames: bytes, width: int, path: Path) -> list[float]:
    """Samples of 8 to 32 bits, little endian; those of 8 bits have no sign."""
    if width == 1:
        return [(value - 128) / 128 for value in frames]
    if width not in (2, 3, 4):
        raise DataError(f"{path}: has samples of {8 * width} bits; save it with 16")
    scale = 1 / (1 << (8 * width - 1))
    if width == 3:
        return [int.from_bytes(frames[at : at + 3], "little", signed=True) * scale for at in range(0, len(frames), 3)]
    kind = "h" if width == 2 else "i"
    return [value * scale for (value,) in struct.iter_unpack(f"<{kind}", frames)]
