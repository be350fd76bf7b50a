"""Where tensors lie in the arena: each at the lowest offset that is free as long as it lives."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from edge_runtime.export.ir.graph import Value

Span = tuple[int, int]
"""First and last operation, inclusive."""
Spans = tuple[Span, ...]
_BEGIN, _STOP, _FIRST, _LAST, _COUNT = range(5)
_FEW = 256
"""Entries up to which a loop over them takes less time than a call of numpy."""


def place(
    order: list[Value], spans: dict[Value, Spans], sizes: dict[Value, int], below_bytes: int | None
) -> dict[Value, int] | None:
    """Lowest offset that is free during the whole lifetime (best fit by the order given).

    None as soon as the arena is known to be no smaller than `below_bytes`.
    """
    placed: dict[Value, int] = {}
    taken: _Few | _Many = _Few()
    for value in order:
        if isinstance(taken, _Few) and len(taken.entries) == _FEW:
            taken = _Many(taken, len(order))
        own, size = spans[value], sizes[value]
        offset = taken.lowest(size, own)
        if below_bytes is not None and offset + size >= below_bytes:
            return None
        placed[value] = offset
        taken.add(offset, offset + size, own)
    return placed


class _Few:
    """Bytes that are taken, in the order of their first ones: begin and end, first and last operation, spans.

    Bytes that follow each other and live at the same time are one entry, or parameters and their momentum would be
    hundreds that every value is compared with.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, int, int, Spans]] = []

    def lowest(self, size: int, own: Spans) -> int:
        """The lowest offset with `size` bytes behind it that nothing takes during `own`."""
        first, last = own[0][0], own[-1][1]
        single = 1 if len(own) == 1 else 0
        offset = 0
        for begin, stop, start, end, parts in self.entries:
            if begin - offset >= size:
                break
            # Most pairs are told apart by their ends, and of two single spans that is all there is to know.
            if start <= last and first <= end and stop > offset and (len(parts) == single or meet(parts, own)):
                offset = stop
        return offset

    def add(self, begin: int, stop: int, own: Spans) -> None:
        """Take bytes [begin, stop) during `own`."""
        at = bisect_right(self.entries, begin, key=itemgetter(_BEGIN))
        if at > 0:
            start, end, first, last, parts = self.entries[at - 1]
            if end == begin and parts == own:
                self.entries[at - 1] = (start, stop, first, last, parts)
                return
        self.entries.insert(at, (begin, stop, own[0][0], own[-1][1], own))


class _Many:
    """The same, as the columns of a table: thousands of entries are looked through at once."""

    def __init__(self, few: _Few, most: int) -> None:
        self._table: NDArray[np.int64] = np.zeros((5, most + 1), np.int64)
        self._spans = [entry[4] for entry in few.entries]
        for at, entry in enumerate(few.entries):
            self._table[:, at] = *entry[:4], len(entry[4])

    def lowest(self, size: int, own: Spans) -> int:
        """The lowest offset with `size` bytes behind it that nothing takes during `own`."""
        table = self._table[:, : len(self._spans)]
        meets = np.flatnonzero((table[_FIRST] <= own[-1][1]) & (table[_LAST] >= own[0][0]))
        if len(own) > 1 or (table[_COUNT, meets] > 1).any():
            meets = np.array([at for at in meets if meet(self._spans[at], own)], np.int64)
        if meets.size == 0:
            return 0
        stops = np.maximum.accumulate(table[_STOP, meets])
        gaps = table[_BEGIN, meets]
        gaps[1:] -= stops[:-1]
        fits = gaps >= size
        at = int(fits.argmax()) if fits.any() else meets.size
        return int(stops[at - 1]) if at > 0 else 0

    def add(self, begin: int, stop: int, own: Spans) -> None:
        """Take bytes [begin, stop) during `own`."""
        count = len(self._spans)
        at = int(np.searchsorted(self._table[_BEGIN, :count], begin, side="right"))
        if at > 0 and self._table[_STOP, at - 1] == begin and self._spans[at - 1] == own:
            self._table[_STOP, at - 1] = stop
            return
        self._table[:, at + 1 : count + 1] = self._table[:, at:count]
        self._table[:, at] = begin, stop, own[0][0], own[-1][1], len(own)
        self._spans.insert(at, own)


def meet(some: Spans, others: Spans) -> bool:
    """Whether an operation is in both. Of two single spans that is seen at once."""
    if len(some) == len(others) == 1:
        return some[0][0] <= others[0][1] and others[0][0] <= some[0][1]
    return any(first <= end and begin <= last for first, last in some for begin, end in others)
