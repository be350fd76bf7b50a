"""Where updates lie on their way from the SuperLink to the rounds: a folder of one start of a run alone."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

_PREFIX = "arrived-"
_GONE = ".gone"


class Arrivals:
    """Places for updates below `folder`, from which whatever earlier starts have left is removed.

    A thread may be in the middle of an answer when its start ends, such as one that waits for a SuperLink that went
    away. It finds no place for the answer any more, whoever has begun here since.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_PREFIX}*"):
            _remove(left)
        self._count = itertools.count()
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))

    def place(self, attempt: int, node: int) -> Path:
        """For one update of a node in one attempt."""
        return self._folder / f"{attempt}-{node:x}-{next(self._count)}"

    def close(self) -> None:
        """Remove everything, and let nothing come any more."""
        if self._folder.exists():
            _remove(self._folder)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # Under its old name nobody can write into it any more while it is being emptied.
    gone = path if path.suffix == _GONE else path.rename(path.with_name(path.name + _GONE))
    shutil.rmtree(gone, ignore_errors=True)
