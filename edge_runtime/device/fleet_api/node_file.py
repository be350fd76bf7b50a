"""What a device remembers of its node, so that a restart is taken back at once.

A SuperLink activates no node that is online, and one whose process was killed is online until its last heartbeat is
old (Flower issue 4844). A heartbeat with the node's own number is taken at any time: the number is kept in a file. The
file is there, and empty, before the node is activated for the first time; whoever finds it so was killed in between and
waits until the SuperLink has noticed.
"""

from __future__ import annotations

import os

from device_profiles.errors import ExecutionError
from device_profiles.outputs import move_over, new_file, sync, temporary_name, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


class NodeFile:
    """The number of a node in a file; without a path it is forgotten with the process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> int | None:
        """The number, None where there is none; what cannot be read counts as none."""
        try:
            return None if self._path is None else int(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    @property
    def was_activating(self) -> bool:
        """Whether a process was killed before it learnt the number."""
        return self._path is not None and self._path.exists() and self.read() is None

    def write(self, node: int | None) -> None:
        """Raises ExecutionError."""
        if self._path is None:
            return
        temporary = temporary_name(str(self._path))
        try:
            file = new_file(temporary)
            try:
                write_all(file, b"" if node is None else f"{node}\n".encode())
                sync(file)
            finally:
                os.close(file)
            move_over(temporary, str(self._path))
        except OSError as error:
            raise ExecutionError(f"{self._path}: cannot be written: {error.strerror or error}") from None
