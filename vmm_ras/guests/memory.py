"""Guest RAM of the model: sparse, bounded by its regions, and able to be poisoned."""

from __future__ import annotations

from struct import Struct

from vmm_ras.errors import GuestError, Poisoned

_SHIFT = 16
_WORD = Struct("<Q")
_CHUNK = 1 << _SHIFT
_PAGE = 12


class GuestMemory:
    """Bytes by guest physical address.  Memory is taken in 64 KiB chunks, when they are first written.

    Reading and writing raise GuestError outside every region and Poisoned on a poisoned 4 KiB page.
    """

    def __init__(self) -> None:
        self.regions: list[tuple[int, int]] = []
        """(first address, address behind the last), sorted."""
        self._chunks: dict[int, bytearray] = {}
        self._fast: dict[int, bytearray] = {}
        """Chunks that lie in a region wholly and hold no poison."""
        self._poison: dict[int, int] = {}
        """Chunk number to a bitmap of its poisoned pages; at most one entry per 64 KiB of guest RAM."""
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
        at = gpa & _CHUNK - 1
        chunk = self._fast.get(gpa >> _SHIFT)
        if chunk is not None and at + size <= _CHUNK:
            return bytes(chunk[at : at + size])
        self._check(gpa, size)
        parts = []
        while size:
            at = gpa & _CHUNK - 1
            here = min(size, _CHUNK - at)
            found = self._chunks.get(gpa >> _SHIFT)
            parts.append(bytes(here) if found is None else bytes(found[at : at + here]))
            gpa, size = gpa + here, size - here
        return b"".join(parts)

    def word(self, gpa: int) -> int:
        """The 64-bit little-endian number at ``gpa``."""
        chunk, at = self._fast.get(gpa >> _SHIFT), gpa & _CHUNK - 1
        if chunk is not None and at <= _CHUNK - 8:
            return _WORD.unpack_from(chunk, at)[0]  # type: ignore[no-any-return]
        return int.from_bytes(self.read(gpa, 8), "little")

    def update_word(self, gpa: int, keep: int, bits: int) -> None:
        """Keep these bits of the 64-bit little-endian number at ``gpa``, and set those."""
        chunk, at = self._fast.get(gpa >> _SHIFT), gpa & _CHUNK - 1
        if chunk is not None and at <= _CHUNK - 8:
            _WORD.pack_into(chunk, at, _WORD.unpack_from(chunk, at)[0] & keep | bits)
        else:
            value = int.from_bytes(self.read(gpa, 8), "little")
            self.write(gpa, _WORD.pack(value & keep | bits))

    def write(self, gpa: int, data: bytes) -> None:
        """Put ``data`` at ``gpa``."""
        size = len(data)
        at = gpa & _CHUNK - 1
        chunk = self._fast.get(gpa >> _SHIFT)
        if chunk is not None and at + size <= _CHUNK:
            chunk[at : at + size] = data
            return
        self._check(gpa, size)
        done = 0
        while done < size:
            at = gpa + done & _CHUNK - 1
            here = min(size - done, _CHUNK - at)
            number = gpa + done >> _SHIFT
            found = self._chunks.get(number)
            if found is None:
                found = self._chunks[number] = bytearray(_CHUNK)
                if number not in self._poison and self._inside(number << _SHIFT, _CHUNK):
                    self._fast[number] = found
            found[at : at + here] = data[done : done + here]
            done += here

    def poison(self, gpa: int, size: int) -> None:
        """Lose the pages that hold ``size`` bytes at ``gpa``: from now on touching them raises Poisoned."""
        poison, first, last = self._poison, gpa >> _PAGE, (gpa + max(size, 1) - 1) >> _PAGE
        bits = _SHIFT - _PAGE
        number = first >> bits
        while number <= last >> bits:
            low = max(first, number << bits) & (1 << bits) - 1
            high = min(last, (number + 1 << bits) - 1) & (1 << bits) - 1
            poison[number] = poison.get(number, 0) | (2 << high) - (1 << low)
            self._fast.pop(number, None)
            number += 1

    def replace(self, gpa: int, size: int) -> None:
        """Give whole pages back as fresh zeroed ones: the only way in which poison goes away."""
        first, last = gpa >> _PAGE, (gpa + size - 1) >> _PAGE
        for page in range(first, last + 1):
            number = page >> _SHIFT - _PAGE
            left = self._poison.get(number, 0) & ~(1 << (page & (1 << _SHIFT - _PAGE) - 1))
            if left:
                self._poison[number] = left
            else:
                self._poison.pop(number, None)
            if number in self._chunks:
                at = page << _PAGE & _CHUNK - 1
                self._chunks[number][at : at + (1 << _PAGE)] = bytes(1 << _PAGE)
                if not left and self._inside(number << _SHIFT, _CHUNK):
                    self._fast[number] = self._chunks[number]

    def _inside(self, gpa: int, size: int) -> bool:
        return any(low <= gpa and gpa + size <= high for low, high in self.regions)

    def _check(self, gpa: int, size: int) -> None:
        if gpa < 0 or size < 0 or not self._inside(gpa, size):
            raise GuestError(f"{size} bytes at {gpa:#x}: outside guest memory")
        if not self._poison or not size:
            return
        for page in range(gpa >> _PAGE, (gpa + size - 1 >> _PAGE) + 1):
            if self._poison.get(page >> _SHIFT - _PAGE, 0) >> (page & (1 << _SHIFT - _PAGE) - 1) & 1:
                raise Poisoned(max(gpa, page << _PAGE))
