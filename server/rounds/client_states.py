"""What the server keeps for its clients from one of their tasks to the next, such as SCAFFOLD's control variates.

RUN/client_state/<client>.state/<n>.safetensors   as of round n, in which the client's update was taken
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from server.averaging.tensor_files import save_tensors


class ClientStates:
    """Files of tensors, a folder for each client that has any; nobody's is in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, client: str) -> Path | None:
        """What is kept for a client; None where there is nothing."""
        return max(self._place(client).glob("[0-9]*.safetensors"), default=None)

    def put(self, round_number: int, client: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Write what came with an update of a round that is not saved yet."""
        save_tensors(self._place(client) / f"{round_number:06d}.safetensors", tensors)

    def keep(self, round_number: int, clients: Collection[str]) -> None:
        """Of the round `round_number`, keep what came from `clients`, whose updates were taken."""
        kept = {self._place(client) for client in clients}
        for path in self._folder.glob(f"*/{round_number:06d}.safetensors"):
            if path.parent not in kept:
                path.unlink()

    def drop_after(self, round_number: int) -> None:
        """Forget what came after `round_number`, the last round that is saved."""
        for path in self._all():
            if int(path.stem) > round_number:
                path.unlink()

    def drop_replaced(self) -> None:
        """Forget what a newer file has taken the place of."""
        for folder in {path.parent for path in self._all()}:
            for path in sorted(folder.glob("[0-9]*.safetensors"))[:-1]:
                path.unlink()

    def clear(self) -> None:
        """Forget everything: another stage trains something else."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        return list(self._folder.glob("*/[0-9]*.safetensors"))

    def _place(self, client: str) -> Path:
        # A client of a federation may be called anything.
        return self._folder / f"{quote(client, safe='')}.state"
