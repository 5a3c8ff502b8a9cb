"""What a trace holds, counted in one pass and in memory that does not grow with it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from vmm_ras.events import GuestAbort, HostSignal, MemoryFault
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.traces.items import BadLine, Entry, Header, Unlocated
from vmm_ras.traces.write import plain

PAGE_SHIFT = 12
"""Pages are counted in units of 4 KiB, whatever the granule."""
WINDOW_SHIFT = 30
WINDOWS_MAX = 2048
"""Windows of 1 GiB, 32 KiB of bits each, in which lost pages are told apart."""
SPAN_MAX = 64 << WINDOW_SHIFT
"""Bytes of the largest loss whose pages are told apart."""
KEYS_MAX = 4096
"""Threads that are told apart, and slots of guest memory that are looked at."""
_IN_WINDOW = (1 << WINDOW_SHIFT - PAGE_SHIFT) - 1


class Pages:
    """Which pages of 4 KiB were lost, a bit each."""

    def __init__(self) -> None:
        self._windows: dict[int, bytearray] = {}
        self.count = 0
        self.exact = True
        """False if there were too many windows: then ``count`` is the least that it can be."""

    def add(self, address: int, size: int) -> int:
        """How many pages of the range were not lost before."""
        if size > SPAN_MAX:
            self.exact = False
            return 1
        if size == 1 << PAGE_SHIFT and not address & size - 1:
            bits = self._windows.get(address >> WINDOW_SHIFT)
            if bits is not None:  # most traces: by hand, as it is four times as quick
                at, bit = address >> PAGE_SHIFT + 3 & (1 << WINDOW_SHIFT - PAGE_SHIFT - 3) - 1, 1 << (address >> 12 & 7)
                if bits[at] & bit:
                    return 0
                bits[at] |= bit
                self.count += 1
                return 1
        page, end = address >> PAGE_SHIFT, address + max(size, 1) - 1 >> PAGE_SHIFT
        new = 0
        for window in range(page >> WINDOW_SHIFT - PAGE_SHIFT, (end >> WINDOW_SHIFT - PAGE_SHIFT) + 1):
            bits = self._windows.get(window)
            if bits is None:
                if len(self._windows) >= WINDOWS_MAX:
                    self.exact = False
                    break
                bits = self._windows[window] = bytearray(_IN_WINDOW + 1 >> 3)
            base = window << WINDOW_SHIFT - PAGE_SHIFT
            new += _set(bits, max(page, base) - base, min(end, base + _IN_WINDOW) - base)
        self.count += new
        return new


def _set(bits: bytearray, first: int, last: int) -> int:
    """Set bits ``first`` to ``last``; how many were clear."""
    low, high = first >> 3, (last >> 3) + 1
    mask = (1 << last - (low << 3) + 1) - (1 << (first & 7))
    old = int.from_bytes(bits[low:high], "little")
    bits[low:high] = (old | mask).to_bytes(high - low, "little")
    return (mask & ~old).bit_count()


class Storms:
    """Runs of ``least`` or more events with at most ``gap`` seconds between one and the next."""

    def __init__(self, gap: float, least: int) -> None:
        self.gap, self.least = gap, least
        self.count = self.events = 0
        self.longest: tuple[int, float, float] | None = None
        """Events, first and last time of the largest."""
        self._start = self._last = 0.0
        self._run = 0

    def add(self, at: float) -> None:
        """One more event."""
        if self._run and 0 <= at - self._last <= self.gap:
            self._run += 1
        else:
            self.end()
            self._run, self._start = 1, at
        self._last = at

    def end(self) -> None:
        """No more events: what is under way is over."""
        if self._run >= self.least:
            self.count += 1
            self.events += self._run
            if self.longest is None or self._run > self.longest[0]:
                self.longest = self._run, self._start, self._last
        self._run = 0


class Stats:
    """Counts over a trace.  ``slots`` are the guest's memory, beside those that the trace tells."""

    def __init__(self, slots: Iterable[MemorySlot] = (), *, gap: float = 1.0, least: int = 10) -> None:
        self.kinds: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.granules: Counter[int] = Counter()
        """Signals by lsb, faults by the power of two that holds them."""
        self.threads: Counter[int] = Counter()
        self.actions: Counter[str] = Counter()
        self.unlocated: Counter[str] = Counter()
        """By code: AR, AO, unknown."""
        self.host, self.guest = Pages(), Pages()
        self.repeated = self.unmapped = self.own_threads = self.bad = 0
        self.addresses = "hva"
        self.first: float | None = None
        self.last: float | None = None
        self.peak = 0
        """Most events whose times have the same whole second."""
        self.storms = Storms(gap, least)
        self._second, self._in_second, self._timed = 0, 0, 0
        self._slots = list(MemoryMap(slots).slots)
        self._starts = [slot.hva for slot in self._slots]
        self.slots_exact = True

    def take(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Count entries as they pass.  Raises what iterating ``entries`` raises."""
        for entry in entries:
            self.add(entry)
            yield entry
        self.storms.end()

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        _, at, item = entry
        match item:
            case HostSignal(code, hva, lsb, tid):
                self._event(at, "signal", code.name)
                self.granules[lsb] += 1
                if tid in self.threads or len(self.threads) < KEYS_MAX:
                    self.threads[tid] += 1
                else:
                    self.own_threads += 1
                self._lost(self.host, hva >> lsb << lsb, 1 << lsb)
                if self._slots and not self._is_guest(hva):
                    self.unmapped += 1
            case MemoryFault(gpa, size):
                self._event(at, "fault", None)
                self.granules[(size - 1).bit_length()] += 1
                self._lost(self.guest, gpa, size)
            case GuestAbort(_, _, _, gpa):
                self._event(at, "abort", "AR")
                if gpa is not None:
                    self._lost(self.guest, gpa, 1 << PAGE_SHIFT)
            case Unlocated(code):
                self._event(at, "unlocated", None)
                self.unlocated["unknown" if code is None else code.name] += 1
            case BadLine():
                self.bad += 1
            case Header(_, _, addresses):
                self.addresses = addresses
            case MemorySlot():
                self.actions["memory"] += 1
                self._add_slot(item)
            case _:
                fields = plain(item)
                self.actions[fields.get("action") or fields["event"]] += 1

    @property
    def events(self) -> int:
        """Events and unlocated errors."""
        return sum(self.kinds.values())

    def _event(self, at: float | None, kind: str, code: str | None) -> None:
        self.kinds[kind] += 1
        if code is not None:
            self.codes[code] += 1
        if at is None:
            return
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)
        self._timed += 1
        second = int(at)
        self._in_second = self._in_second + 1 if second == self._second else 1
        self._second = second
        self.peak = max(self.peak, self._in_second)
        self.storms.add(at)

    def _lost(self, pages: Pages, address: int, size: int) -> None:
        if not pages.add(address, size) and pages.exact:
            self.repeated += 1

    def _is_guest(self, hva: int) -> bool:
        index = bisect_right(self._starts, hva) - 1
        return index >= 0 and hva - self._slots[index].hva < self._slots[index].size

    def _add_slot(self, slot: MemorySlot) -> None:
        if len(self._slots) >= KEYS_MAX:
            self.slots_exact = False
            return
        index = bisect_right(self._starts, slot.hva)
        before, after = self._slots[index - 1 : index], self._slots[index : index + 1]
        if (before and slot.hva - before[0].hva < before[0].size) or (after and after[0].hva - slot.hva < slot.size):
            return  # replay says so; for counting, the first one holds
        self._slots.insert(index, slot)
        self._starts.insert(index, slot.hva)

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the counts."""
        span = None if self.first is None or self.last is None else self.last - self.first
        longest = self.storms.longest
        return {
            "events": self.events, "kinds": dict(self.kinds), "codes": dict(self.codes),
            "unlocated": dict(self.unlocated), "bad_lines": self.bad, "addresses": self.addresses,
            "pages": {
                "unit": 1 << PAGE_SHIFT, "host": self.host.count, "guest": self.guest.count,
                "exact": self.host.exact and self.guest.exact,
            },
            "repeated": self.repeated,
            "unmapped": self.unmapped if self._slots else None,
            "granules": {str(lsb): count for lsb, count in sorted(self.granules.items())},
            "threads": {str(tid): count for tid, count in self.threads.most_common()}
            | ({"others": self.own_threads} if self.own_threads else {}),
            "time": {
                "first": self.first, "last": self.last, "span": span,
                "per_second": self._timed / span if span else None, "peak_in_a_second": self.peak or None,
            },
            "storms": {
                "gap": self.storms.gap, "least": self.storms.least, "count": self.storms.count,
                "events": self.storms.events,
                "longest": None if longest is None
                else {"events": longest[0], "first": longest[1], "seconds": longest[2] - longest[1]},
            },
            "trace": dict(self.actions),
        }  # fmt: skip
