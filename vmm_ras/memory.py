"""Where guest memory lies in the host, and what of its poison the guest was told.

The poison map is the queue of what is still to be told: at most one byte per guest page, however many events come.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from vmm_ras.errors import InputError

PAGE_SHIFTS = (12, 14, 16)
"""Arm translation granules: 4, 16 and 64 KiB."""
ADDRESS_END = 1 << 64


class MemorySlot(NamedTuple):
    """One range of guest memory as the host maps it (KVM_SET_USER_MEMORY_REGION): addresses and size in bytes."""

    hva: int
    gpa: int
    size: int


class MemoryMap:
    """Host virtual to guest physical addresses.  Immutable.  Raises InputError where slots overlap or wrap."""

    def __init__(self, slots: Iterable[MemorySlot] = ()) -> None:
        self.slots = tuple(sorted(slots))
        for key, name in ((0, "host"), (1, "guest")):
            end = 0
            for slot in sorted(self.slots, key=lambda s: s[key]):
                if slot.size <= 0 or slot[key] < 0 or slot[key] + slot.size > ADDRESS_END:
                    raise InputError(f"memory slot {':'.join(map(hex, slot))}: outside the {name} address space")
                if slot[key] < end:
                    raise InputError(f"memory slot at {name} address {slot[key]:#x} overlaps the one before it")
                end = slot[key] + slot.size
        self._starts = [s.hva for s in self.slots]
        self._last = MemorySlot(0, 0, 0)
        """The slot that was asked for last: it is asked for again."""

    def slot_of(self, hva: int) -> MemorySlot | None:
        """The slot that holds a host address; None: it is the VMM's own memory."""
        low, _, size = slot = self._last
        if 0 <= hva - low < size:
            return slot
        index = bisect_right(self._starts, hva) - 1
        if index < 0 or hva - self.slots[index].hva >= self.slots[index].size:
            return None
        self._last = slot = self.slots[index]
        return slot

    def with_slot(self, slot: MemorySlot) -> MemoryMap:
        """The map with one more slot.  Raises InputError."""
        return MemoryMap((*self.slots, slot))


HEALTHY: Final = 0
UNREPORTED: Final = 1
POSTED: Final = 2
ACKED: Final = 3
STATES = ("healthy", "unreported", "posted", "acked")
MAX_QUEUES: Final = 64
HELD: Final = MAX_QUEUES - 1
TOUCH: Final = MAX_QUEUES - 2
"""Queues that no asynchronous way tells: of pages whose vCPU is held, and of pages that are told when touched."""
MAX_RULES: Final = MAX_QUEUES - 2
_CHUNK_SHIFT: Final = 12  # pages per chunk: 16 MiB of 4 KiB pages in 4 KiB, allocated when some of them are lost
_CHUNK: Final = 1 << _CHUNK_SHIFT
_IN_CHUNK: Final = _CHUNK - 1
_FEW = 8
"""Values that are looked for one by one."""


_RUN = re.compile(rb"([^\0])\1*", re.DOTALL)
_ZEROS, _MANY_ZEROS = bytes(256), bytes(1024)


def nonzero(pattern: re.Pattern[bytes], data: bytearray) -> Iterator[re.Match[bytes]]:
    """What the pattern, which matches no zero, finds; a match ends with its 256 bytes at the latest.

    Zeros are passed over by comparing, and by arithmetic: that is much quicker than a pattern that looks for others.
    """
    step, stride, end = len(_ZEROS), len(_MANY_ZEROS), len(data)
    for start in range(0, end, stride):
        if data.startswith(_MANY_ZEROS, start):
            continue
        for low in range(start, min(start + stride, end), step):
            if data.startswith(_ZEROS, low):
                continue
            at, high = low, low + step
            word = int.from_bytes(data[at:high], "little")
            while word:
                at += (word & -word).bit_length() - 1 >> 3
                found = pattern.match(data, at, high)
                assert found is not None
                yield found
                at = found.end()
                word = int.from_bytes(data[at:high], "little")


def _spans(data: bytearray, patterns: list[tuple[int, re.Pattern[bytes]]]) -> list[tuple[int, int, int]]:
    """(first, end, value) of what the patterns, each of one value and more of it, find; ascending."""
    out = []
    for value, pattern in patterns:
        at = data.find(value)
        while at >= 0:
            end = pattern.match(data, at).end()  # type: ignore[union-attr]  # the value is there
            out.append((at, end, value))
            at = data.find(value, end)
    out.sort()
    return out


def aligned(first: int, count: int) -> Iterator[tuple[int, int]]:
    """A range of pages as the fewest blocks (first, count), each a power of two and aligned to it."""
    while count:
        size = min(first & -first or 1 << 64, 1 << count.bit_length() - 1)
        yield first, size
        first, count = first + size, count - size


class PoisonMap:
    """What the guest was told of each lost page: ``unreported | posted | acked``, and by which rule it is to be told.

    One byte per page: the state in bits 1:0, the queue (which rule decided) in bits 7:2.  A page number is
    ``gpa >> page_shift``.
    """

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}
        self._uniform: dict[int, int] = {}
        """Other chunks, all of whose pages have this one value: a large range takes next to no memory."""
        self._order: list[int] = []
        """The numbers of both kinds, ascending."""
        self.counts = [0, 0, 0, 0]
        """Pages by state; healthy ones are not counted."""
        self.waiting = [0] * MAX_QUEUES
        """Unreported pages by queue."""
        self._lowest = [0] * MAX_QUEUES

    @classmethod
    def of_runs(cls, runs: Iterable[Sequence[int]]) -> PoisonMap:
        """The map of which :meth:`runs` gives these: ascending, and apart."""
        self = cls()
        chunks, order, counts, waiting, last = self._chunks, self._order, self.counts, self.waiting, -1
        for first, count, state, queue in runs:
            value, page, left = state, first, count
            counts[state] += count
            if state == UNREPORTED:
                value = state | queue << 2
                if not waiting[queue]:
                    self._lowest[queue] = first
                waiting[queue] += count
            while left:
                index, at = page >> _CHUNK_SHIFT, page & _IN_CHUNK
                size = left if at + left < _CHUNK else _CHUNK - at
                page, left = page + size, left - size
                if index != last:
                    order.append(index)
                    last = index
                    if size == _CHUNK:
                        self._uniform[index] = value
                        continue
                    chunks[index] = bytearray(_CHUNK)
                if size == 1:
                    chunks[index][at] = value
                else:
                    chunks[index][at : at + size] = bytes((value,)) * size
        return self

    def state(self, page: int) -> int:
        """HEALTHY, UNREPORTED, POSTED or ACKED."""
        chunk = self._chunks.get(page >> _CHUNK_SHIFT)
        return (self._uniform.get(page >> _CHUNK_SHIFT, 0) if chunk is None else chunk[page & _IN_CHUNK]) & 3

    def _chunk(self, index: int) -> bytearray:
        """A chunk whose pages may differ."""
        chunk = self._chunks.get(index)
        if chunk is None:
            value = self._uniform.pop(index, 0)
            if not value:
                insort(self._order, index)
            chunk = self._chunks[index] = bytearray((value,)) * _CHUNK if value else bytearray(_CHUNK)
        return chunk

    def _fill(self, index: int, value: int) -> None:
        """Give all pages of a chunk one value."""
        at = bisect_left(self._order, index)
        known = at < len(self._order) and self._order[at] == index
        self._chunks.pop(index, None)
        self._uniform.pop(index, None)
        if value:
            self._uniform[index] = value
        if value and not known:
            self._order.insert(at, index)
        elif known and not value:
            del self._order[at]

    def set(self, page: int, state: int, queue: int = 0) -> int:
        """Put a page into ``state`` (and, when unreported, ``queue``); the state it had."""
        chunk, at, counts = self._chunks.get(page >> _CHUNK_SHIFT), page & _IN_CHUNK, self.counts
        if chunk is None:
            chunk = self._chunk(page >> _CHUNK_SHIFT)
        value = chunk[at]
        old = value & 3
        if old:
            counts[old] -= 1
            if old == UNREPORTED:
                self.waiting[value >> 2] -= 1
        if state:
            counts[state] += 1
            if state == UNREPORTED:
                if not self.waiting[queue] or page < self._lowest[queue]:
                    self._lowest[queue] = page
                self.waiting[queue] += 1
                state |= queue << 2
        chunk[at] = state
        return old

    def post(self, page: int) -> bool:
        """Make a healthy page posted; False, and nothing changes, if it was not healthy."""
        index, at = page >> _CHUNK_SHIFT, page & _IN_CHUNK
        chunk = self._chunks.get(index)
        if chunk is None:
            if index in self._uniform:
                return False
            chunk = self._chunk(index)
        if chunk[at]:
            return False
        chunk[at] = POSTED
        self.counts[POSTED] += 1
        return True

    def mark(self, first: int, count: int, state: int) -> None:
        """Put a range into ``state``, which is not UNREPORTED, whatever was known of its pages."""
        page, end = first, first + count
        while page < end:
            if end - page == 1:
                self.set(page, state)
                return
            index, at = page >> _CHUNK_SHIFT, page & _IN_CHUNK
            stop = min(at + end - page, _CHUNK)
            whole = stop - at == _CHUNK
            if whole:
                chunk = self._chunks.get(index)
                known = Counter({self._uniform.get(index, 0): _CHUNK} if chunk is None else chunk)
                self._fill(index, state)
            else:
                chunk = self._chunk(index)
                known = Counter(chunk[at:stop])
                chunk[at:stop] = bytes((state,)) * (stop - at)
            for value, pages in known.items():
                if value & 3:
                    self.counts[value & 3] -= pages
                if value & 3 == UNREPORTED:
                    self.waiting[value >> 2] -= pages
            if state:
                self.counts[state] += stop - at
            page += stop - at

    def acknowledge(self, pages: tuple[tuple[int, int], ...], shift: int) -> None:
        """The guest was told of these (gpa, size): posted pages are acked; what became of others meanwhile stays."""
        counts = self.counts
        for gpa, size in pages:
            page = gpa >> shift
            if size >> shift > 1:  # one entry for a large page, named by an address inside it
                first = (gpa & -size) >> shift
                for page in range(first, first + (size >> shift)):
                    if self.state(page) == POSTED:
                        self.set(page, ACKED)
                continue
            chunk, at = self._chunks.get(page >> _CHUNK_SHIFT), page & _IN_CHUNK
            if chunk is None:
                chunk = self._chunk(page >> _CHUNK_SHIFT)
            if chunk[at] & 3 == POSTED:
                chunk[at] = ACKED
                counts[POSTED] -= 1
                counts[ACKED] += 1

    def add(self, first: int, count: int, queue: int) -> int:
        """Make the healthy pages of a range unreported; how many they were.  Other pages keep what is known of them."""
        if count == 1:
            chunk = self._chunks.get(first >> _CHUNK_SHIFT)
            if first >> _CHUNK_SHIFT in self._uniform if chunk is None else chunk[first & _IN_CHUNK]:
                return 0
            self.set(first, UNREPORTED, queue)
            return 1
        added, page, end = 0, first, first + count
        while page < end:
            index, at = page >> _CHUNK_SHIFT, page & _IN_CHUNK
            stop = min(at + end - page, _CHUNK)
            if index in self._uniform:
                pass  # all are lost already
            elif stop - at == _CHUNK and index not in self._chunks:
                self._fill(index, queue << 2 | UNREPORTED)
                added += _CHUNK
            else:
                chunk = self._chunk(index)
                part = chunk[at:stop]
                added += part.count(0)
                chunk[at:stop] = part.replace(b"\0", bytes([queue << 2 | UNREPORTED]))
            page += stop - at
        if added:
            if not self.waiting[queue] or first < self._lowest[queue]:
                self._lowest[queue] = first
            self.waiting[queue] += added
            self.counts[UNREPORTED] += added
        return added

    def take(self, queue: int, limit: int, first: int = 0, end: int = 1 << 64) -> list[int]:
        """Up to ``limit`` unreported pages of a queue, lowest first, of those from ``first`` to before ``end``.

        Their state is left alone.
        """
        found: list[int] = []
        wanted = min(limit, self.waiting[queue])
        if wanted <= 0:
            return found
        page = self._lowest[queue]
        value = queue << 2 | UNREPORTED
        if wanted == 1 and first <= page < end:
            lowest = self._chunks.get(page >> _CHUNK_SHIFT)
            if lowest is not None and lowest[page & _IN_CHUNK] == value:
                return [page]
        page = max(page, first)
        for index in self._indexes(page >> _CHUNK_SHIFT, end - 1 >> _CHUNK_SHIFT):
            if self._uniform.get(index, value) != value:
                continue
            chunk, base = self._chunk(index), index << _CHUNK_SHIFT
            at = chunk.find(value, max(page - base, 0), min(end - base, _CHUNK))
            while at >= 0:
                found.append(base + at)
                if len(found) == wanted:
                    break
                at = chunk.find(value, at + 1, min(end - base, _CHUNK))
            if len(found) == wanted:
                break
        if found and first == 0:
            self._lowest[queue] = found[0]
        return found

    def take_blocks(self, queue: int, limit: int) -> list[tuple[int, int]]:
        """Up to ``limit`` blocks (first page, count) of a queue's unreported pages, powers of two and aligned."""
        found: list[tuple[int, int]] = []
        value = bytes((queue << 2 | UNREPORTED,))
        pattern = re.compile(re.escape(value) + b"+")
        for index in self._indexes():
            base, chunk = index << _CHUNK_SHIFT, self._chunks.get(index)
            if chunk is None:
                spans = [(0, _CHUNK)] if self._uniform[index] == value[0] else []
            else:
                spans = [run.span() for run in pattern.finditer(chunk)]
            for low, high in spans:
                for block in aligned(base + low, high - low):
                    found.append(block)
                    if len(found) >= limit:
                        return found
        return found

    def _indexes(self, first: int = 0, last: int = 1 << 64) -> list[int]:
        """The chunks in which a page may be lost, ascending."""
        return self._order[bisect_left(self._order, first) : bisect_right(self._order, last)]

    def runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Every lost range as (first page, count, state, queue), ascending: what a snapshot holds."""
        last: tuple[int, int, int, int] | None = None
        values = [queue << 2 | UNREPORTED for queue, pages in enumerate(self.waiting) if pages]
        values += [state for state in (POSTED, ACKED) if self.counts[state]]
        patterns = [(value, re.compile(re.escape(bytes((value,))) + b"+")) for value in values]
        for index in self._order:
            base, chunk = index << _CHUNK_SHIFT, self._chunks.get(index)
            spans: Iterable[tuple[int, int, int]]
            if chunk is None:
                spans = [(0, _CHUNK, self._uniform[index])]
            elif len(patterns) <= _FEW:
                spans = _spans(chunk, patterns)
            else:
                spans = ((*found.span(), found.group()[0]) for found in nonzero(_RUN, chunk))
            for low, high, value in spans:
                run = (base + low, high - low, value & 3, value >> 2)
                if last is not None and last[0] + last[1] == run[0] and last[2:] == run[2:]:
                    last = (last[0], last[1] + run[1], run[2], run[3])
                    continue
                if last is not None:
                    yield last
                last = run
        if last is not None:
            yield last
