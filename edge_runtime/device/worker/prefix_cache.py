"""The outputs of the frozen prefix, computed once and kept in a file: one row an example, of augmented ones several.

The file: a header of 4096 bytes, then the rows. The header holds a magic word, the number of rows that are there and
their CRC-32 (eight bytes each, little-endian) and, as JSON, what the rows were computed from; a file of anything else,
or with damaged rows, is filled anew. Rows are read with `pread` straight into the arena. A mapping would do the same,
but its pages would count as this process's, while those that `pread` leaves behind are the system's own cache.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys

from device_profiles.errors import DataError, UsageError
from device_profiles.settings import Setting
from edge_runtime.device.worker.loaded_program import LoadedProgram
from edge_runtime.device.worker.progress import ProgressLine
from edge_runtime.device.worker.text import json_text, megabytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from edge_runtime.device.worker.batches import Examples
    from edge_runtime.device.worker.job import CacheJob, Job

_MAGIC = b"PROFLFEA"
_HEADER_BYTES = 4096
_COUNT_BYTES = 8
_CHECKSUM_BYTES = 8
_PIECE_BYTES = 1 << 16
_SYNC_BATCHES = 64


class PrefixCache:
    """An open cache file, locked against others that would fill it with something else.

    Attributes:
        bytes: size on disk.
        filled: rows that this process computed.
    """

    def __init__(self, native: Any, job: CacheJob, *, examples: int) -> None:
        self._path = job["path"]
        self._job = job
        self._examples = examples
        self._rows = rows = examples * job["versions"]
        self._layout = native.FeatureRows(job["dtype"], job["channels"], job["values"])
        self._identity = json_text(
            {
                "format_version": 2,
                "digest": job["digest"],
                "instruction_set": native.instruction_set(),
                "dtype": job["dtype"],
                "channels": job["channels"],
                "values": job["values"],
                "rows": rows,
            }
        ).encode()
        self.bytes = _HEADER_BYTES + rows * self._layout.row_bytes
        self.filled = 0
        self._piece = memoryview(bytearray(_PIECE_BYTES))
        self._owned = False
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            # What is no file of ours is neither waited for nor written into.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file = os.open(self._path, flags, 0o600)
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise UsageError(
                    f"{self._path} is no file", field="cache_dir", remedy=("choose another ", Setting("cache_dir"))
                )
            self._lock()
        except OSError as error:
            raise UsageError(
                f"no file of features can be kept there: {error.strerror or error}",
                field="cache_dir",
                value=os.path.dirname(self._path),
                remedy=("choose another ", Setting("cache_dir")),
            ) from None

    @property
    def complete(self) -> bool:
        """Whether every row is there."""
        return self._done() == self._rows

    def verify(self) -> None:
        """Begin anew where rows are not what was written; raises DataError where another process reads them."""
        if self._checksum(0, 0, self._done()) == self._noted_checksum():
            return
        if not self._owned:
            raise DataError(f"{self._path}: is damaged; remove it, and it is computed again")
        self._begin()

    def check_space(self) -> None:
        """Raise UsageError where the disk has less room than the rows that are missing need."""
        if self.complete:
            return
        about = os.statvfs(os.path.dirname(self._path))
        missing = self.bytes - os.fstat(self._file).st_blocks * 512
        if missing > about.f_bavail * about.f_frsize:
            raise self._no_room(about.f_bavail * about.f_frsize)

    def fill(self, native: Any, job: Job, examples: Examples, *, check_only: bool) -> int:
        """Compute the rows that are missing, in an arena that is gone afterwards; returns the predicted peak in bytes.

        A signal ends it early, and what is there is kept. Raises PromiseError, UsageError where the disk is full.
        """
        loaded = LoadedProgram(native, self._job["program"], job)
        loaded.promise(examples.rehearse)
        if not check_only:
            self._allocate()
            loaded.load_tensors()
            self._compute(native, loaded, examples)
        return loaded.predicted_bytes

    def fetch(self, indices: list[int], batch: memoryview[Any], *, epoch: int) -> None:
        """Fill the first rows of `batch` with the features of examples, of the version that `epoch` has.

        Raises DataError where the file ends early.
        """
        version = epoch % self._job["versions"]
        offset = _HEADER_BYTES + version * self._examples * self._layout.row_bytes
        failed = self._layout.read(self._file, offset, indices, batch)
        if failed >= 0:
            raise DataError(f"{self._path}: ends inside row {failed}; remove it, and it is computed again")

    def rehearse(self) -> None:
        """Read one row beside the batch."""
        size = 4 * self._job["channels"] * self._job["values"]
        self._layout.read(self._file, _HEADER_BYTES, [0], memoryview(bytearray(size)).cast("f"))

    def share(self) -> None:
        """Let other processes read the rows from now on, but not replace them."""
        fcntl.flock(self._file, fcntl.LOCK_SH)
        if not self._matches() or not self.complete:
            raise DataError(
                f"{self._path}: another process replaced it",
                remedy=("start again, or choose another ", Setting("cache_dir")),
            )

    def _compute(self, native: Any, loaded: LoadedProgram, examples: Examples) -> None:
        data = loaded.data
        assert data is not None  # a program for features takes images
        size = len(data)
        done = first = noted = self._done()
        checksum = self._noted_checksum()
        line = ProgressLine(self._rows, done=first)
        while done < self._rows and not native.noted_signal():
            version, first_example = divmod(done, self._examples)
            indices = list(range(first_example, min(first_example + size, self._examples)))
            examples.fetch_filled(indices, data, epoch=version)
            loaded.execute()
            offset = _HEADER_BYTES + done * self._layout.row_bytes
            failed = self._layout.write(self._file, offset, loaded.output(), len(indices))
            if failed:
                raise OSError(failed, os.strerror(failed), self._path)
            done += len(indices)
            self.filled = done - first
            line.update(done, "features of the frozen blocks")
            if self.filled // size % _SYNC_BATCHES == 0:
                checksum = self._checksum(checksum, noted, done)
                self._note(done, checksum)
                noted = done
        self._note(done, self._checksum(checksum, noted, done))
        line.close()

    def _lock(self) -> None:
        """Own the file where it must be filled, share it where it is complete; wait for a process that fills it."""
        while True:
            if self._try(fcntl.LOCK_EX):
                self._owned = True
                if not self._matches():
                    self._begin()
                return
            if self._try(fcntl.LOCK_SH):
                if self._matches() and self.complete:
                    return
                raise UsageError(
                    f"another process trains from {self._path}, which does not fit this bundle, weights and data",
                    field="cache_dir",
                    remedy=("choose another ", Setting("cache_dir"), ", or wait"),
                )
            print(f"profl-edge: waiting for another process that fills {self._path}", file=sys.stderr)
            fcntl.flock(self._file, fcntl.LOCK_SH)
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _matches(self) -> bool:
        header = os.pread(self._file, _HEADER_BYTES, 0)
        begin = len(_MAGIC) + _COUNT_BYTES + _CHECKSUM_BYTES
        whole = os.fstat(self._file).st_size >= _HEADER_BYTES + self._done() * self._layout.row_bytes
        return header.startswith(_MAGIC) and header[begin:].rstrip(b"\0") == self._identity and whole

    def _done(self) -> int:
        return int.from_bytes(os.pread(self._file, _COUNT_BYTES, len(_MAGIC)), "little")

    def _begin(self) -> None:
        os.ftruncate(self._file, 0)
        header = _MAGIC + bytes(_COUNT_BYTES + _CHECKSUM_BYTES) + self._identity
        os.pwrite(self._file, header.ljust(_HEADER_BYTES, b"\0"), 0)

    def _noted_checksum(self) -> int:
        return int.from_bytes(os.pread(self._file, _CHECKSUM_BYTES, len(_MAGIC) + _COUNT_BYTES), "little")

    def _checksum(self, checksum: int, first: int, end: int) -> int:
        """CRC-32 of rows `first` to `end`, of which `checksum` is that of all before them."""
        from zlib import crc32

        row_bytes = self._layout.row_bytes
        position, stop = _HEADER_BYTES + first * row_bytes, _HEADER_BYTES + end * row_bytes
        while position < stop:
            count = os.preadv(self._file, [self._piece[: min(_PIECE_BYTES, stop - position)]], position)
            if count == 0:
                break
            checksum = crc32(self._piece[:count], checksum)
            position += count
        return checksum

    def _note(self, done: int, checksum: int) -> None:
        """Rows first, then their number: after a loss of power there are no fewer rows than the number says."""
        os.fdatasync(self._file)
        noted = done.to_bytes(_COUNT_BYTES, "little") + checksum.to_bytes(_CHECKSUM_BYTES, "little")
        os.pwrite(self._file, noted, len(_MAGIC))

    def _allocate(self) -> None:
        try:
            os.posix_fallocate(self._file, 0, self.bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise self._no_room(None) from None

    def _no_room(self, free_bytes: int | None) -> UsageError:
        free = "" if free_bytes is None else f", {megabytes(free_bytes)} are free"
        return UsageError(
            f"the features require {megabytes(self.bytes)}{free}",
            field="cache_dir",
            value=os.path.dirname(self._path),
            remedy=(
                "choose another ",
                Setting("cache_dir"),
                ", a smaller ",
                Setting("cache_prefix_dtype"),
                ", or leave ",
                Setting("cache_prefix"),
                " out",
            ),
        )
