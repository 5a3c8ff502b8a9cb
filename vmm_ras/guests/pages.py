"""A set of pages of a guest."""

from __future__ import annotations


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
        if piece[at] & bit:
            return False
        piece[at] |= bit
        self.count += 1
        return True

    def __contains__(self, page: int) -> bool:
        piece = self._pieces.get(page >> 18)
        return piece is not None and bool(piece[page >> 3 & 0x7FFF] & 1 << (page & 7))
