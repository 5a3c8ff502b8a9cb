"""The blocks that a guest printed lately: Linux prints no identical one, and by some ways does nothing about it."""

from __future__ import annotations

from acpi.hest import NotificationType
from vmm_ras.profiles import GuestProfile


class PrintedBlocks:
    """What Linux keeps in ghes_estatus_caches, and the limit of ghes_print_estatus()."""

    def __init__(self, profile: GuestProfile) -> None:
        self._slots, self._seconds = profile.cache_slots, profile.cache_seconds
        self._blocks, self._window = profile.printed_blocks, profile.printed_seconds
        self._ways = tuple(profile.cache_swallows)
        self._seen: list[bytes] = []
        self._times: list[float] = []
        """Blocks, the oldest first, and when each was printed: so few that comparing costs less than hashing one."""
        self._counts = [(float("-inf"), 0), (float("-inf"), 0)]
        """Since when blocks are counted, and how many were printed; of corrected ones the second."""

    def swallows(self, raw: bytes, corrected: bool, now: float, by: NotificationType) -> bool:
        """Whether an identical block was printed lately, and by this way is not handled again.

        A new one is printed, and remembered, unless too many of its class were.
        """
        seen, times = self._seen, self._times
        old = seen.index(raw) if raw in seen else -1
        if old >= 0 and times[old] > now - self._seconds:
            return by in self._ways
        since, count = self._counts[corrected]
        if now > since + self._window:
            since, count = now, 0
        if count < self._blocks:
            self._counts[corrected] = since, count + 1
            if old < 0 and len(seen) >= self._slots:
                old = 0
            if old >= 0:
                del seen[old], times[old]
            seen.append(raw)
            times.append(now)
        return False

    def take(self) -> tuple[list[tuple[bytes, float]], list[tuple[float, int]]]:
        """What is remembered: blocks with their times, the oldest first, and both counts."""
        return list(zip(self._seen, self._times, strict=True)), list(self._counts)

    def put(self, seen: list[tuple[bytes, float]], counts: list[tuple[float, int]]) -> None:
        """Remember what ``take`` gave."""
        times = dict(seen)
        self._seen, self._times, self._counts = list(times), list(times.values()), list(counts)
