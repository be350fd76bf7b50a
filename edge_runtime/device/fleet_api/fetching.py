"""A file of a message: from the socket into the file, chunk by chunk, hashed on the way.

Until it is whole it lies beside its place with the ending `.part`, which holds whole chunks after a failure: whoever
fetches it again, be it after a restart, goes on behind them.
"""

from __future__ import annotations

from device_profiles.errors import ExecutionError, FormatError
from device_profiles.federation import FILE_TYPE
from edge_runtime.device.fleet_api.objects import ARRAY, chunks_of
from edge_runtime.device.fleet_api.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from device_profiles.federation import SentFile
    from edge_runtime.device.fleet_api.incoming import Incoming
    from edge_runtime.device.fleet_api.pulling import Puller


def fetch(
    puller: Puller, incoming: Incoming, array_id: str, path: Path, expected: SentFile, deadline: float | None
) -> None:
    """Write the file to `path`.

    Raises DigestError or FormatError where it is another file than `expected`, ExecutionError where it cannot be
    written, and what `Puller.stream` raises.
    """
    body, chunks = chunks_of(puller.small(incoming, array_id, ARRAY, deadline))
    if body.stype != FILE_TYPE:
        raise FormatError(f"a file of the message has the type {body.stype}, where {FILE_TYPE} is expected")
    try:
        with Part(path, expected) as part:
            for chunk in chunks[part.keep(chunks) :]:
                if not part.repeat(chunk):
                    puller.stream(incoming, chunk, part.receive(chunk), deadline)
            part.finish()
    except OSError as error:
        raise ExecutionError(f"{path}: cannot be written: {error.strerror or error}") from None
