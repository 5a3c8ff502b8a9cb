"""Ranges of addresses that are lost: as many entries as there are gaps, however large the ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Holes:
    """A set of addresses, kept as ranges (low, high) that ascend and do not touch."""

    def __init__(self) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._lows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._lows, self._highs, strict=True)

    def add(self, low: int, high: int) -> None:
        """Add the addresses from ``low`` to before ``high``."""
        first, end = bisect_left(self._highs, low), bisect_right(self._lows, high)
        if first < end:
            low, high = min(low, self._lows[first]), max(high, self._highs[end - 1])
        self._lows[first:end], self._highs[first:end] = [low], [high]

    def remove(self, low: int, high: int) -> None:
        """Take the addresses from ``low`` to before ``high`` out."""
        first, end = bisect_right(self._highs, low), bisect_left(self._lows, high)
        if first < end:
            ends = [(self._lows[first], low), (high, self._highs[end - 1])]
            left = [pair for pair in ends if pair[0] < pair[1]]
            self._lows[first:end], self._highs[first:end] = [a for a, _ in left], [b for _, b in left]

    def within(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """The ranges of the set from ``low`` to before ``high``."""
        at = bisect_right(self._highs, low)
        while at < len(self._lows) and self._lows[at] < high:
            yield max(low, self._lows[at]), min(high, self._highs[at])
            at += 1

    def first(self, low: int, high: int) -> int | None:
        """The lowest address from ``low`` to before ``high`` that is in the set, or None."""
        return next((start for start, _ in self.within(low, high)), None)
