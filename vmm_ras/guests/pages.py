"""A set of pages of a guest."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vmm_ras.memory import nonzero

_SET = re.compile(b"[^\\0]+")


class PageSet:
    """A set of page numbers, one bit each, in 32 KiB pieces per 2^18 pages: bounded by guest RAM."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytearray] = {}
        self.count = 0

    def add(self, page: int) -> bool:
        """Add a page; whether it is new."""
        piece = self._pieces.get(page >> 18)
        if piece is None:
            piece = self._pieces[page >> 18] = bytearray(1 << 15)
        at, bit = page >> 3 & 0x7FFF, 1 << (page & 7)
        bits = piece[at]
        if bits & bit:
            return False
        piece[at] = bits | bit
        self.count += 1
        return True

    def __contains__(self, page: int) -> bool:
        piece = self._pieces.get(page >> 18)
        return piece is not None and bool(piece[page >> 3 & 0x7FFF] & 1 << (page & 7))

    def add_range(self, first: int, count: int) -> None:
        """Add pages that are none of the set's."""
        page, end = first, first + count
        while page < end:
            piece = self._pieces.setdefault(page >> 18, bytearray(1 << 15))
            at = page & 0x3FFFF
            stop = min(at + end - page, 1 << 18)
            low, high = at >> 3, stop + 7 >> 3
            bits = int.from_bytes(piece[low:high], "little") | (1 << stop - (low << 3)) - (1 << at - (low << 3))
            piece[low:high] = bits.to_bytes(high - low, "little")
            self.count += stop - at
            page += stop - at

    def runs(self) -> Iterator[tuple[int, int]]:
        """(first page, count) of each run of pages, ascending."""
        first = end = -1
        for number in sorted(self._pieces):
            for found in nonzero(_SET, self._pieces[number]):
                base, bits = (number << 18) + (found.start() << 3), int.from_bytes(found.group(), "little")
                while bits:
                    low = (bits & -bits).bit_length() - 1
                    rest = bits >> low
                    count = (~rest & rest + 1).bit_length() - 1
                    if base + low != end:
                        if end >= 0:
                            yield first, end - first
                        first = base + low
                    end = base + low + count
                    base, bits = end, rest >> count
        if end >= 0:
            yield first, end - first
