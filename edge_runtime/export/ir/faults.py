"""Faults of the exporter itself: one line that says so, with the operator or module, instead of a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from device_profiles.errors import ExecutionError, ProflError

_REMEDIES = (
    ("argument #1 'indices'", "; a model of tokens needs --input-dtype int64"),
    ("data-dependent", "; write forward so that no value of a tensor decides what is run (if, while, .item())"),
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
    while error.__cause__ is not None:
        error = error.__cause__
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    remedy = next((remedy for known, remedy in _REMEDIES if known in reason), "")
    place = _CALLED_AT.search(str(error))
    return f"{reason}{f', at line {place[2]} of {place[1]}' if place else ''}{remedy}"
