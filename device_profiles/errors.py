"""The one error tree of the project.

ProflError                    anything a user or a device can get wrong; one line, no traceback
├── UsageError                the command line asks for something impossible (exit status 2)
├── FormatError               a file is not what it says it is (exit status 2)
│   └── DigestError           its bytes are not the ones that were written
├── DataError                 a data set does not fit the program (exit status 2)
├── PromiseError              a memory limit is below what the plan needs (exit status 2)
└── ExecutionError            the work itself failed (exit status 1)
    └── OutOfMemoryError      the hard limit was reached
"""

from __future__ import annotations


class ProflError(Exception):
    """Root of every error a command reports as one line.

    Attributes:
        exit_status: what the process exits with when the error reaches the command line.
    """

    exit_status = 1


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


class OutOfMemoryError(ExecutionError):
    """The hard memory limit was reached."""
