"""The one error tree of the project.

ProflError                    anything a user or a device can get wrong; one line, no traceback
├── UsageError                the command line asks for something impossible (exit status 2)
├── FormatError               a file is not what it says it is (exit status 2)
│   └── DigestError           its bytes are not the ones that were written
├── DataError                 a data set does not fit the program (exit status 2)
├── PromiseError              a memory limit is below what the plan needs (exit status 2)
└── ExecutionError            the work itself failed (exit status 1)
    └── OutOfMemoryError      the hard limit was reached

Errors are structured, so that nobody has to read their English: what they are about, what is wrong, and the remedy, in
which settings are named by references (`device_profiles.settings`) that every front end puts in its own words.
"""

from __future__ import annotations

from device_profiles.settings import COMMAND_LINE, pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from device_profiles.settings import Said, Words


class ProflError(Exception):
    """Root of every error a command reports as one line: `PLACE: FIELD VALUE: MESSAGE; REMEDY`.

    Its text, `str(error)`, is in the words of the command line; `said` has it in those of another front end.

    Attributes:
        exit_status: what the process exits with when the error reaches the command line.
        message: what is wrong.
        field: key of the setting that is wrong, where one is; `value` is what it was set to.
        remedy: what to do about it.
        start: what stands in front of it all, such as the name of a file and a colon.
    """

    exit_status = 1

    def __init__(
        self,
        message: Said = "",
        *,
        field: str | None = None,
        value: object = None,
        remedy: Said | None = None,
        place: str | None = None,
    ) -> None:
        self.message = message
        self.field = field
        self.value = value
        self.remedy = remedy
        self.start = "" if place is None else f"{place}: "
        super().__init__(self.said(COMMAND_LINE))

    def said(self, words: Words, *, with_field: bool = True) -> str:
        """The whole line, in the words of a front end; it may leave out what the error is about."""
        text = words.text(self.message)
        if self.remedy is not None:
            text = f"{text}; {words.text(self.remedy)}"
        if self.field is not None and with_field:
            text = f"{words.subject(self.field, self.value)}: {text}"
        return f"{self.start}{text}"

    @property
    def reason(self) -> str:
        """What is wrong, without the place that it is in front of it."""
        return str(self).removeprefix(self.start)

    @property
    def names_settings(self) -> bool:
        """Whether it is about settings, which each front end has its own words for."""
        said = (self.message, "" if self.remedy is None else self.remedy)
        return self.field is not None or any(not isinstance(piece, str) for piece in pieces(said))

    def at(self, place: str, joint: str = ": ") -> Self:
        """The same error, which says `place` first."""
        moved = type(self)(self.message, field=self.field, value=self.value, remedy=self.remedy)
        moved.start = f"{place}{joint}{self.start}"
        moved.args = (moved.said(COMMAND_LINE),)
        return moved


class UsageError(ProflError):
    """An option or a combination of options that cannot work; the message names the option and the remedy."""

    exit_status = 2


class FormatError(ProflError):
    """A file that cannot be read as what it should be; the message names the file and the field."""

    exit_status = 2


class DigestError(FormatError):
    """A file whose size or SHA-256 differs from what its manifest states."""


class DataError(ProflError):
    """A data set whose shape, labels or files do not fit."""

    exit_status = 2


class PromiseError(ProflError):
    """A memory limit below the predicted peak of the work."""

    exit_status = 2


class ExecutionError(ProflError):
    """The work started and could not be finished."""


class NothingHeldError(ExecutionError):
    """A fleet of devices none of which holds any work of the model."""


class DivergedError(ExecutionError):
    """A training whose loss or tensors stopped being numbers, or grew beyond all bounds."""

    exit_status = 3


class OutOfMemoryError(ExecutionError):
    """The hard memory limit was reached."""
