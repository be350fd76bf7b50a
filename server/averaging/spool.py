"""Updates of a round in files, so that the server's memory does not grow with the number of clients."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from server.averaging.aggregation import ReceivedUpdate
from server.averaging.file_tensors import write_tensors


class Spool:
    """A folder that holds the updates of the round that is being made, and nothing that outlives it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def put(self, update: ReceivedUpdate) -> ReceivedUpdate:
        """Write an update as it arrives; the same update, with its tensors in a file of the spool.

        Raises FormatError where it has a tensor that no update has, ExecutionError where the disk does not take it.
        """
        # A number and not the client's name: one that answers twice has two updates, and a name is a stranger's text.
        path = self._folder / f"{self._count:06d}.safetensors"
        self._count += 1
        return replace(update, tensors=write_tensors(path, update.tensors, update.metadata.to_strings()))

    def clear(self) -> None:
        """Remove everything: the round is saved, or its process was killed and it is made again."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._count = 0
