"""Faults of the exporter itself: one line that says so, with the operator or module, instead of a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from device_profiles.errors import ExecutionError, ProflError
from device_profiles.settings import Setting

if TYPE_CHECKING:
    from device_profiles.settings import Said

TOKENS_NEED_INT64: Said = ("a model of tokens requires ", Setting("input_dtype", "int64"))
_REMEDIES: tuple[tuple[str, Said], ...] = (
    ("argument #1 'indices'", TOKENS_NEED_INT64),
    (
        "data-dependent",
        "write forward so that no value of a tensor decides what is run (if, while, .item()); where layers are left "
        "out at random, such as by layerdrop, make their probability 0",
    ),
)
"""What to do about some of the reasons that PyTorch gives, by what is in them."""
_CALLED_AT = re.compile(r'The following call raised this error:\s+File "(.+)", line (\d+)')


@contextmanager
def faults_named(what: str) -> Iterator[None]:
    """Turn an exception of the body that no one expected into an ExecutionError that begins with `what`."""
    try:
        yield
    except ProflError:
        raise
    except OSError as error:
        raise ExecutionError(f"{what}: {error}; make room for temporary files") from None
    except Exception as error:  # what nobody expected is a fault, whatever its type
        raise ExecutionError(
            f"{what} ({type(error).__name__}: {reason_of(error)}): this is a fault of the exporter, not of the model; "
            "please report it with the model"
        ) from error


def reason_of(error: BaseException) -> str:
    """The first line of what PyTorch says, or of what its own error was caused by: advice to its developers follows."""
    error = _first_cause(error)
    place = _CALLED_AT.search(str(error))
    return f"{_first_line(error)}{f', at line {place[2]} of {place[1]}' if place else ''}"


def remedy_for(error: BaseException) -> Said | None:
    """What to do about the reason that PyTorch gives, where that is known."""
    reason = _first_line(_first_cause(error))
    return next((remedy for known, remedy in _REMEDIES if known in reason), None)


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
