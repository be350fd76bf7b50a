"""Settings that an error names: one key for each, which every front end puts in its own words.

The key of a setting is neutral (`input_shape`): the command line calls it `--input 3x32x32`, a fleet file
`model.input_shape = [3, 32, 32]`. A key with a dot (`training.rounds`) is the fleet file's own, and called so by all.

The training process imports this module as well, so that it imports nothing itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Piece: TypeAlias = "str | Reference"
    Said: TypeAlias = "Piece | tuple[Said, ...]"
    """What an error says: text, with references to settings among it."""


class Reference:
    """A part of an error's text that a front end puts in its own words."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: object = None) -> None:
        self.key = key
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (other.key, other.value) == (self.key, self.value)

    def __hash__(self) -> int:
        return hash((type(self), self.key))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r}, {self.value!r})"

    def __reduce__(self) -> tuple[type[Reference], tuple[str, object]]:
        return type(self), (self.key, self.value)

    def said(self, words: Words) -> str:
        """Its text in the words of a front end."""
        raise NotImplementedError


class Setting(Reference):
    """A setting by its name, with a value where it has one: `--width` or `--width 8`."""

    def said(self, words: Words) -> str:
        """`--width 8`, `model.width = 8`."""
        return words.name(self.key) if self.value is None else words.assigned(self.key, self.value)


class Exported(Reference):
    """The advice to export the model with this setting, which a fleet file does by itself once the key is set."""

    def said(self, words: Words) -> str:
        """`export the model with --classes 10`, `set model.classes to 10`."""
        return words.exported(self.key, self.value)


class ValueOf(Reference):
    """A value alone, as it is written for its setting."""

    def said(self, words: Words) -> str:
        """`3x32x32`, `[3, 32, 32]`."""
        return words.value(self.value)


class _TheModel(Reference):
    """The user's model as the subject of a sentence; a front end that has a name for it says it first."""

    def __init__(self, key: str = "model", value: object = None) -> None:
        super().__init__(key, value)

    def said(self, words: Words) -> str:
        """`the model`, `model.name cnn: the model`."""
        return words.the_model()


THE_MODEL = _TheModel()
"""The start of a message about the user's model as a whole."""


_SPELLED = {"input_shape": "--input", "output": "-o"}
"""Options that are not spelled as their keys."""


class Words:
    """How a front end calls settings; this one is the command line's."""

    def name(self, key: str) -> str:
        """A setting: `--width`."""
        if "." in key:
            return key
        return _SPELLED.get(key) or "--" + key.replace("_", "-")

    def value(self, value: object) -> str:
        """A value, as it is written behind its option: a shape as `3x32x32`."""
        return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def subject(self, key: str, value: object) -> str:
        """What stands in front of a message: `--width 8`, or `--width` without a value."""
        return self.name(key) if value is None else f"{self.name(key)} {self.value(value)}"

    def assigned(self, key: str, value: object) -> str:
        """A setting and its value within a sentence: `--width 8`."""
        return self.subject(key, value)

    def exported(self, key: str, value: object) -> str:
        """The advice to export with a value: `export the model with --width 8`."""
        return f"export the model with {self.assigned(key, value)}"

    def the_model(self) -> str:
        """The user's model as the subject of a sentence."""
        return "the model"

    def text(self, said: Said) -> str:
        """The whole of what is said."""
        return "".join(piece if isinstance(piece, str) else piece.said(self) for piece in pieces(said))


def pieces(said: Said) -> Iterator[Piece]:
    """The parts of what is said, one after the other."""
    if isinstance(said, tuple):
        for part in said:
            yield from pieces(part)
    else:
        yield said


COMMAND_LINE = Words()
"""The words of the commands' options."""
