"""Guest RAM of the model: sparse, bounded by its regions, and able to be poisoned."""

from __future__ import annotations

from array import array
from struct import Struct
from typing import Final

from vmm_ras.errors import GuestError, Poisoned, SnapshotError
from vmm_ras.guests.holes import Holes

_SHIFT: Final = 16
_CHUNK: Final = 1 << _SHIFT
_IN_CHUNK: Final = _CHUNK - 1
_NOWHERE: Final = -(1 << 61)
"""The number of no chunk: no sum or difference of addresses gets there."""
_PAGE: Final = 12
_LITTLE: Final = array("Q", [1]).tobytes()[0] == 1
"""Whether the host's words are those of the guest."""
_SHORT: Final = 256
_get: Final = [Struct(f"{size}s").unpack_from for size in range(_SHORT)]
_put: Final = [Struct(f"{size}s").pack_into for size in range(_SHORT)]
"""Bytes out of an array and into it, by their number: a third cheaper than slices."""


def _bytes(chunk: array[int]) -> memoryview:
    return memoryview(chunk).cast("B")


class GuestMemory:
    """Bytes by guest physical address.  Memory is taken in 64 KiB chunks, when they are first written.

    Reading and writing raise GuestError outside every region and Poisoned on a poisoned 4 KiB page.
    """

    def __init__(self) -> None:
        self.regions: list[tuple[int, int]] = []
        """(first address, address behind the last), sorted."""
        self._chunks: dict[int, array[int]] = {}
        """By the address without its last 16 bits."""
        self._fast: dict[int, array[int]] = {}
        """Chunks that lie in a region wholly and hold no poison; none on a big-endian host."""
        self._number, self._chunk = _NOWHERE, array("Q")
        """The one of these that was used last."""
        self.holes = Holes()
        """Whole pages that are poisoned."""
        self._low = self._high = 0
        """The region in which an address was found last."""

    def add_region(self, gpa: int, size: int) -> None:
        """Guest RAM of ``size`` bytes at ``gpa``; it may touch or overlap others."""
        spans = sorted([*self.regions, (gpa, gpa + size)])
        merged: list[tuple[int, int]] = []
        for low, high in spans:
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            else:
                merged.append((low, high))
        self.regions = merged

    def is_ram(self, gpa: int) -> bool:
        """Whether the address is in a region."""
        if not self._low <= gpa < self._high:
            found = [(low, high) for low, high in self.regions if low <= gpa < high]
            if not found:
                return False
            self._low, self._high = found[0]
        return True

    def read(self, gpa: int, size: int) -> bytes:
        """``size`` bytes at ``gpa``."""
        at = gpa & _IN_CHUNK
        if 0 <= size <= _CHUNK - at and (gpa >> _SHIFT == self._number or self._turn_to(gpa >> _SHIFT)):
            if size < _SHORT:
                return _get[size](self._chunk, at)[0]  # type: ignore[no-any-return]
            return _bytes(self._chunk)[at : at + size].tobytes()
        self._check(gpa, size)
        parts = []
        while size:
            at = gpa & _IN_CHUNK
            here = min(size, _CHUNK - at)
            found = self._chunks.get(gpa >> _SHIFT)
            parts.append(bytes(here) if found is None else _bytes(found)[at : at + here])
            gpa, size = gpa + here, size - here
        return b"".join(parts)

    def word(self, gpa: int) -> int:
        """The 64-bit little-endian number at ``gpa``."""
        if not gpa & 7 and (gpa >> _SHIFT == self._number or self._turn_to(gpa >> _SHIFT)):
            return self._chunk[(gpa & _IN_CHUNK) >> 3]
        return int.from_bytes(self.read(gpa, 8), "little")

    def update_word(self, gpa: int, keep: int, bits: int) -> None:
        """Keep these bits of the 64-bit little-endian number at ``gpa``, and set those."""
        if not gpa & 7 and (gpa >> _SHIFT == self._number or self._turn_to(gpa >> _SHIFT)):
            chunk, at = self._chunk, (gpa & _IN_CHUNK) >> 3
            chunk[at] = chunk[at] & keep | bits
        else:
            self.write(gpa, (self.word(gpa) & keep | bits).to_bytes(8, "little"))

    def write(self, gpa: int, data: bytes) -> None:
        """Put ``data`` at ``gpa``."""
        at, size = gpa & _IN_CHUNK, len(data)
        if size <= _CHUNK - at and (gpa >> _SHIFT == self._number or self._turn_to(gpa >> _SHIFT)):
            if size < _SHORT:
                _put[size](self._chunk, at, data)
            else:
                _bytes(self._chunk)[at : at + size] = data
            return
        self._check(gpa, size)
        done = 0
        while done < size:
            at = gpa + done & _IN_CHUNK
            here = min(size - done, _CHUNK - at)
            number = gpa + done >> _SHIFT
            found = self._chunks.get(number)
            if found is None:
                found = self._chunks[number] = array("Q", bytes(_CHUNK))
                self._quicken(number)
            _bytes(found)[at : at + here] = data[done : done + here]
            done += here

    def poison(self, gpa: int, size: int) -> None:
        """Lose the pages that hold ``size`` bytes at ``gpa``: from now on touching them raises Poisoned."""
        low, high = gpa & -(1 << _PAGE), -(-(gpa + max(size, 1)) >> _PAGE) << _PAGE
        self.holes.add(low, high)
        self._number = _NOWHERE
        for number in [n for n in self._fast if low < n + 1 << _SHIFT and n << _SHIFT < high]:
            del self._fast[number]

    def replace(self, gpa: int, size: int) -> None:
        """Give whole pages back as fresh zeroed ones: the only way in which poison goes away."""
        low, high = gpa & -(1 << _PAGE), -(-(gpa + size) >> _PAGE) << _PAGE
        self.holes.remove(low, high)
        for number, chunk in self._chunks.items():
            start, end = max(low - (number << _SHIFT), 0), min(high - (number << _SHIFT), _CHUNK)
            if start < end:
                _bytes(chunk)[start:end] = bytes(end - start)
                self._quicken(number)

    def take(self) -> bytes:
        """What was written, chunk by chunk: its number in 8 bytes, and its 64 KiB; of poisoned pages only zeros."""
        out = []
        for number, chunk in sorted(self._chunks.items()):
            data, base = bytearray(chunk), number << _SHIFT
            for low, high in self.holes.within(base, base + _CHUNK):
                data[low - base : high - base] = bytes(high - low)
            if any(data):
                out.append(number.to_bytes(8, "little") + data)
        return b"".join(out)

    def put(self, data: bytes) -> None:
        """Hold what ``take`` gave, and nothing else; regions and holes stay.  Raises SnapshotError first."""
        chunks, last = {}, -1
        for at in range(0, len(data), 8 + _CHUNK):
            number = int.from_bytes(data[at : at + 8], "little")
            chunk = data[at + 8 : at + 8 + _CHUNK]
            if len(chunk) != _CHUNK:
                raise SnapshotError(f"guest memory: {len(data)} bytes are no whole number of chunks")
            if number <= last or not any(low >> _SHIFT <= number <= high - 1 >> _SHIFT for low, high in self.regions):
                raise SnapshotError(f"guest memory: {number << _SHIFT:#x}: chunks ascend, and hold guest memory")
            chunks[number], last = array("Q", chunk), number
        self._chunks, self._fast, self._number = chunks, {}, _NOWHERE
        for number in chunks:
            self._quicken(number)

    def _turn_to(self, number: int) -> bool:
        """Make this chunk the one that is used without a look at regions and holes, if it may."""
        chunk = self._fast.get(number)
        if chunk is None:
            return False
        self._number, self._chunk = number, chunk
        return True

    def _quicken(self, number: int) -> None:
        """Let a chunk be used without a look at regions and holes, if it may."""
        low = number << _SHIFT
        if _LITTLE and self._inside(low, _CHUNK) and self.holes.first(low, low + _CHUNK) is None:
            self._fast[number] = self._chunks[number]

    def _inside(self, gpa: int, size: int) -> bool:
        return any(low <= gpa and gpa + size <= high for low, high in self.regions)

    def _check(self, gpa: int, size: int) -> None:
        if gpa < 0 or size < 0 or not self._inside(gpa, size):
            raise GuestError(f"{size} bytes at {gpa:#x}: outside guest memory")
        lost = self.holes.first(gpa, gpa + size) if self.holes else None
        if lost is not None:
            raise Poisoned(lost)
