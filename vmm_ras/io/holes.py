"""Holes in guest RAM: memory that was lost on another host is made unusable here, so that a touch is an error again.

Three ways, of which the first that the host allows is taken (``Way``).  In each a vCPU that touches the hole comes out
of KVM_RUN and the core hears of consumed poison, and the VMM's own calls raise Poisoned.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from vmm_ras.errors import HostError
from vmm_ras.io import libc
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.kvm.siginfo import MADV_HWPOISON

_API, _REGISTER, _POISON = 0xC018AA3F, 0xC020AA00, 0xC020AA08
"""UFFDIO_API, UFFDIO_REGISTER, UFFDIO_POISON (linux/userfaultfd.h)."""
_THREE, _FOUR = struct.Struct("<3Q"), struct.Struct("<4Q")
"""struct uffdio_api; struct uffdio_register, and uffdio_poison."""
_UFFD_API, _FEATURE_POISON, _MODE_MISSING = 0xAA, 1 << 14, 1


class Way(Enum):
    """How a hole is made."""

    HWPOISON = "hwpoison"
    """madvise(MADV_HWPOISON): a good page of the host is given up for good; it takes CAP_SYS_ADMIN."""
    USERFAULTFD = "userfaultfd"
    """UFFDIO_POISON, Linux 6.6: the mapping says that the page is poisoned."""
    UNMAPPED = "unmapped"
    """The guest has no memory there, and the mapping cannot be used: an access comes out as one to a device."""


class Holes:
    """The holes of one machine's RAM; close it behind the machine.

    ``cut`` takes a range out of the machine (``Vm.cut``); without it holes that need that cannot be made.
    """

    def __init__(self, ram: GuestRam, cut: Callable[[int, int], object] | None = None) -> None:
        self._ram, self._cut, self._fd = ram, cut, -1
        self.refused: dict[Way, str] = {}
        """Ways that the host does not allow, and what it said."""

    def make(self, holes: Iterable[tuple[int, int]], ways: Sequence[Way] = tuple(Way)) -> dict[tuple[int, int], Way]:
        """Make these (gpa, size) holes, of memory that nobody has used yet; each by the first way that can.

        Raises HostError where none can, and GuestError outside the guest's RAM.
        """
        return {hole: self._make(*hole, ways) for hole in holes}

    def _make(self, gpa: int, size: int, ways: Sequence[Way]) -> Way:
        ram, reasons = self._ram, []
        whole = not (gpa - ram.gpa) % ram.granule and not size % ram.granule
        for way in ways:
            if way in self.refused:
                reasons.append(f"{way.value}: {self.refused[way]}")
            elif way is not Way.UNMAPPED and not whole:
                reasons.append(f"{way.value}: the host's pages are larger")
            else:
                try:
                    {Way.HWPOISON: self._lose, Way.USERFAULTFD: self._poison, Way.UNMAPPED: self._unmap}[way](gpa, size)
                    return way
                except OSError as error:
                    self.refused[way] = error.strerror or str(error)
                    reasons.append(f"{way.value}: {self.refused[way]}")
        raise HostError(f"{size:#x} bytes of lost guest memory at {gpa:#x} cannot be made a hole: {'; '.join(reasons)}")

    def _lose(self, gpa: int, size: int) -> None:
        """In a child: the kernel may end whoever does it."""
        address, child = self._ram.hva + gpa - self._ram.gpa, os.fork()
        if child == 0:
            code = 255
            try:
                libc.madvise(address, size, MADV_HWPOISON)
                code = 0
            except OSError as error:
                code = error.errno or code
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise OSError(code, os.strerror(code) if 0 < code < 255 else "the child ended")
        if not all(map(self._ram.is_lost, range(gpa, gpa + size, self._ram.granule))):
            raise OSError(0, "the memory is still good")

    def _poison(self, gpa: int, size: int) -> None:
        ram = self._ram
        if self._fd < 0:
            fd = libc.userfaultfd()
            try:
                fcntl.ioctl(fd, _API, _THREE.pack(_UFFD_API, _FEATURE_POISON, 0))
            except OSError:
                os.close(fd)
                raise
            self._fd = fd
        address = ram.hva + gpa - ram.gpa
        fcntl.ioctl(self._fd, _REGISTER, _FOUR.pack(address, size, _MODE_MISSING, 0))
        fcntl.ioctl(self._fd, _POISON, _FOUR.pack(address, size, 0, 0))
        ram.add_hole(gpa, size)

    def _unmap(self, gpa: int, size: int) -> None:
        ram = self._ram
        if self._cut is None:
            raise OSError(0, "there is no machine to take it from")
        ram.add_hole(gpa, size)
        self._cut(gpa, size)
        if not gpa % ram.granule and not size % ram.granule:
            libc.close_mapping(ram.hva + gpa - ram.gpa, size)

    def close(self) -> None:
        """Give the file back; it may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
