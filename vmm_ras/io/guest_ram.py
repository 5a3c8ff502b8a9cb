"""Guest RAM of a live machine: a memory file that the VMM maps for KVM, and itself reads and writes by calls.

A call returns an error where a mapping raises SIGBUS: on a page that the host has lost, pread(2) and pwrite(2) of shmem
give EIO.  hugetlbfs has no write(2): there process_vm_readv(2) and process_vm_writev(2), of this process itself, give
EFAULT.  (Measured by the lab: docs/lab.md.)  Holes that this process made itself (``vmm_ras.io.holes``) only its
mappings know: a call would read zeros there, so they are remembered here.
"""

from __future__ import annotations

import bisect
import errno
import os

from cper.words import counted
from vmm_ras.errors import GuestError, HostError, Poisoned
from vmm_ras.io import libc
from vmm_ras.io.closing import Closing
from vmm_ras.memory import MemorySlot

MFD_HUGETLB_2MB = os.MFD_HUGETLB | 21 << 26


class GuestRam(Closing):
    """``size`` bytes of RAM at the guest physical address ``gpa``.  Use it in a ``with`` block, or close it.

    ``huge``: of the host's 2 MiB pages.  Reading and writing raise GuestError outside, Poisoned on a lost page.
    """

    def __init__(self, gpa: int, size: int, *, huge: bool = False) -> None:
        self.gpa, self.size, self.huge = gpa, size, huge
        self.granule = 2 << 20 if huge else os.sysconf("SC_PAGE_SIZE")
        """Bytes of a page of the host."""
        self.fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC | (MFD_HUGETLB_2MB if huge else 0))
        try:
            os.ftruncate(self.fd, size)
            self.hva = libc.mmap(size, self.fd)
        except OSError as error:
            os.close(self.fd)
            raise HostError(f"{size} bytes of guest RAM: {error.strerror}") from None
        self._holes: list[tuple[int, int]] = []
        """(first, end) of ranges of the file that count as lost, whatever the host has there; ascending, and apart."""

    @property
    def holes(self) -> list[tuple[int, int]]:
        """(gpa, size) of what was made a hole."""
        return [(self.gpa + first, end - first) for first, end in self._holes]

    def add_hole(self, gpa: int, size: int) -> None:
        """From now on this range counts as lost; it touches no other hole.  Raises GuestError."""
        first = self._offset(gpa, size)
        bisect.insort(self._holes, (first, first + size))

    @property
    def slot(self) -> MemorySlot:
        """For KVM, and for the core's memory map."""
        return MemorySlot(self.hva, self.gpa, self.size)

    def read(self, gpa: int, size: int) -> bytes:
        """``size`` bytes at ``gpa``."""
        offset, parts = self._offset(gpa, size), []
        while size:
            room = self._room(offset, size)
            try:
                part = libc.read_mapped(self.hva + offset, room) if self.huge else os.pread(self.fd, room, offset)
            except OSError as error:
                raise self._error(error, offset) from None
            if not part:
                raise GuestError(f"guest memory at {self.gpa + offset:#x} ends")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, gpa: int, data: bytes) -> None:
        """Write all of ``data`` at ``gpa``; before a lost page all that comes before it."""
        offset, view = self._offset(gpa, len(data)), memoryview(data)
        while view:
            part = view[: self._room(offset, len(view))]
            try:
                if self.huge:
                    done = libc.write_mapped(self.hva + offset, bytes(part))
                else:
                    done = os.pwrite(self.fd, part, offset)
            except OSError as error:
                raise self._error(error, offset) from None
            offset, view = offset + done, view[done:]

    def update_word(self, gpa: int, keep: int, bits: int) -> None:
        """Keep these bits of the 64-bit little-endian number at ``gpa``, and set those."""
        value = int.from_bytes(self.read(gpa, 8), "little") & keep | bits
        self.write(gpa, value.to_bytes(8, "little"))

    def is_lost(self, gpa: int) -> bool:
        """Whether the host has lost the page at ``gpa``."""
        try:
            self.read(gpa, 1)
        except Poisoned:
            return True
        return False

    def replace(self, gpa: int, size: int) -> tuple[int, int]:
        """Give the host's pages in this range back, and have zeroed ones in their place: (gpa, size) of those.

        Raises GuestError, and HostError where a page stays lost.
        """
        first = self._offset(gpa, size) & -self.granule
        count = -(-(gpa - self.gpa + size) // self.granule) * self.granule - first
        try:
            libc.punch_hole(self.fd, first, count)
            libc.mmap(count, self.fd, first, self.hva + first)
        except OSError as error:
            raise HostError(f"guest memory at {self.gpa + first:#x} cannot be replaced: {error.strerror}") from None
        self._holes = [hole for hole in self._holes if not first <= hole[0] < hole[1] <= first + count]
        for offset in range(first, first + count, self.granule):
            if self.is_lost(self.gpa + offset):
                raise HostError(f"guest memory at {self.gpa + offset:#x} stays lost")
        return self.gpa + first, count

    def _offset(self, gpa: int, size: int) -> int:
        offset = gpa - self.gpa
        if not 0 <= offset <= offset + size <= self.size:
            raise GuestError(f"{counted(size, 'byte')} at {gpa:#x}: outside the guest's RAM")
        return offset

    def _room(self, offset: int, size: int) -> int:
        """How many of ``size`` bytes at ``offset`` come before a hole.  Raises Poisoned where there is one."""
        if not self._holes:
            return size
        at = bisect.bisect_right(self._holes, (offset, self.size))
        if at and offset < self._holes[at - 1][1]:
            raise Poisoned(self.gpa + offset)
        return min(size, self._holes[at][0] - offset) if at < len(self._holes) else size

    def _error(self, error: OSError, offset: int) -> GuestError:
        if error.errno in (errno.EIO, errno.EFAULT):
            return Poisoned(self.gpa + offset)
        return GuestError(f"guest memory at {self.gpa + offset:#x}: {error.strerror}")

    def close(self) -> None:
        """Give the memory back; it may be called twice."""
        if self.fd >= 0:
            libc.munmap(self.hva, self.size)
            os.close(self.fd)
            self.fd = -1
