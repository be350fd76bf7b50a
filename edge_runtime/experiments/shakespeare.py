"""`shakespeare:DIR`: the plays as plain text, one file each; the next character of what a role says.

The task follows LEAF (Caldas et al., 2018). A paragraph whose first line is a name with a full stop is a speech of that
role. A client is a role of one play that says at least 4,000 characters. An example is 64 characters of its speeches,
int64 [64], and its label the character behind them; both are places in the alphabet of 80 that LEAF uses.

The last fifth of what each role says is held out, so that every role is tested on what it says later, and no role is
lost to training. `tools/get_shakespeare.sh DIR` gets the plays (Project Gutenberg's, in the public domain).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from pathlib import Path

from device_profiles.errors import DataError
from edge_runtime.device.data.arrays import ArraySource
from edge_runtime.device.data.source import HELD_OUT_EVERY, Clients, Split, unpacked

ALPHABET = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
LENGTH = 64
STEP = 16
MIN_CHARACTERS = 4000
_ROLE = re.compile(r"[A-Z][A-Za-z' ]{0,30}\.")
_PARAGRAPHS = re.compile(r"\n\s*\n")
_TOKENS = {character: token for token, character in enumerate(ALPHABET)}


def open_shakespeare(folder: Path, split: Split) -> ArraySource:
    """Cut the speeches of every role into examples; raises DataError where the folder has no plays."""
    texts = _texts_of_roles(folder)
    if not texts:
        raise DataError(
            f"{folder}: no play with a role of {MIN_CHARACTERS} characters; tools/get_shakespeare.sh gets them"
        )
    names = tuple(sorted(texts))
    labels, ids = array("q"), array("q")

    def windows() -> Iterator[bytes]:
        for client, name in enumerate(names):
            tokens = _part(array("q", [_TOKENS[character] for character in texts[name]]), split)
            for start in range(0, len(tokens) - LENGTH, STEP):
                labels.append(tokens[start + LENGTH])
                ids.append(client)
                yield tokens[start : start + LENGTH].tobytes()

    spool = unpacked(windows())
    shape = (len(labels), LENGTH)
    source = ArraySource(spool, 0, shape, "int64", labels, 0, str(folder), Clients(ids, names))
    source.classes = len(ALPHABET)  # whether or not each of them occurs
    return source


def _part(tokens: array[int], split: Split) -> array[int]:
    held_out = len(tokens) - len(tokens) // HELD_OUT_EVERY
    return tokens[:held_out] if split == "train" else tokens[held_out:]


def _texts_of_roles(folder: Path) -> dict[str, str]:
    """What each role says, by `play/ROLE`, without characters that are not in the alphabet."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; tools/get_shakespeare.sh {folder} gets the plays")
    said: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.txt")):
        try:
            text = path.read_text(encoding="latin-1")
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        for role, speech in _speeches(text):
            said.setdefault(f"{path.stem.removesuffix('_gut')}/{role}", []).append(speech)
    texts = {name: "".join(character for character in "\n".join(said[name]) if character in _TOKENS) for name in said}
    return {name: text for name, text in texts.items() if len(text) >= MIN_CHARACTERS}


def _speeches(text: str) -> Iterator[tuple[str, str]]:
    for paragraph in _PARAGRAPHS.split(text):
        first, *lines = [line.strip() for line in paragraph.strip().splitlines()] or [""]
        if lines and _ROLE.fullmatch(first):
            yield first[:-1].upper(), "\n".join(lines)
