"""`text:PLACE`: the characters of a text file, or of all `.txt` files of a folder; each file is a client.

An example is `length` characters, int64 [length], and its label the character behind them; a new example begins every
`step` characters. Tokens are places in an alphabet that does not depend on the files, so that every client counts
alike: `ascii` has the new line, the 95 printable characters from the space to `~`, and one place for any other
character; `bytes` the 256 values of the bytes of UTF-8. The last fifth of every file is held out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

from device_profiles.errors import DataError, UsageError
from edge_runtime.device.data.arrays import ArraySource
from edge_runtime.device.data.query import place_and_options, whole_number
from edge_runtime.device.data.source import HELD_OUT_EVERY, Clients, Split, unpacked

_OPTIONS = {"length": "length=64", "step": "step=16", "alphabet": "alphabet=ascii or alphabet=bytes"}
ASCII = "\n" + "".join(map(chr, range(32, 127)))
OTHER = len(ASCII)
"""The token of a character that is not in the alphabet."""
_SIZES = {"ascii": OTHER + 1, "bytes": 256}
_PLACES = {character: place for place, character in enumerate(ASCII)}


def open_text(location: str, spec: str, split: Split) -> ArraySource:
    """Cut the texts into examples. Raises UsageError for an option that is none, DataError for files that are no text
    or too short."""
    place, options = place_and_options(location, spec, _OPTIONS)
    length = whole_number(options, "length", 64, spec)
    step = whole_number(options, "step", 16, spec)
    alphabet = options.get("alphabet", "ascii")
    if alphabet not in _SIZES:
        raise UsageError(
            f"'alphabet={alphabet}' is unknown", field="data", value=spec, remedy=f"write {_OPTIONS['alphabet']}"
        )
    files = _files(place)
    labels, ids = array("q"), array("q")

    def windows() -> Iterator[bytes]:
        for client, path in enumerate(files):
            tokens = _part(_tokens(path, alphabet), split)
            for start in range(0, len(tokens) - length, step):
                labels.append(tokens[start + length])
                ids.append(client)
                yield tokens[start : start + length].tobytes()

    spool = unpacked(windows())
    if not labels:
        raise DataError(f"{place}: its {split} part has no {length + 1} characters in a row; give more text")
    clients = Clients(ids, tuple(path.stem for path in files)) if len(files) > 1 else None
    source = ArraySource(spool, 0, (len(labels), length), "int64", labels, 0, str(place), clients)
    source.classes = _SIZES[alphabet]  # whether or not each of them occurs
    return source


def _files(place: Path) -> list[Path]:
    files = sorted(place.glob("*.txt")) if place.is_dir() else [place]
    if not files:
        raise DataError(f"{place}: has no .txt file; text:DIR reads all of a folder, text:FILE one of any name")
    return files


def _tokens(path: Path, alphabet: str) -> array[int]:
    try:
        if alphabet == "bytes":
            return array("q", list(path.read_bytes()))
        text = path.read_text(encoding="utf-8-sig")  # new lines of every system become one
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; convert it, or read its bytes with alphabet=bytes") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    return array("q", [_PLACES.get(character, OTHER) for character in text])


def _part(tokens: array[int], split: Split) -> array[int]:
    kept = len(tokens) - len(tokens) // HELD_OUT_EVERY
    return tokens[:kept] if split == "train" else tokens[kept:]
