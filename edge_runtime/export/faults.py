"""Faults of the exporter itself: one line that says so, with the operator or module, instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from device_profiles.errors import ExecutionError, ProflError
from edge_runtime.export.tracing import reason_of


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
