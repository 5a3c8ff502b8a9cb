"""Memory of the host, lost on purpose (madvise(2), MADV_HWPOISON; Linux ``mm/hwpoison``)."""

from __future__ import annotations

import ctypes
import os

from vmm_ras.io import libc
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.kvm.siginfo import MADV_HWPOISON

MADV_POPULATE_WRITE = 23
"""Of ``include/uapi/asm-generic/mman-common.h``: map pages as if they were written, and leave what they hold."""


def lose_own() -> int:
    """Lose a page of this process that is no guest memory; its address."""
    fd = os.memfd_create("own", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    address = libc.mmap(4096, fd)
    os.close(fd)
    ctypes.memset(address, 1, 4096)
    lose(address, 4096)
    return address


def use(address: int, size: int) -> None:
    """Make pages such that somebody is told when they are lost: mapped here, and dirty.

    Linux drops a clean page of a file that is lost without a word to who has it mapped.  Raises OSError.
    """
    libc.madvise(address, size, MADV_POPULATE_WRITE)


def lose(address: int, size: int) -> None:
    """By a child: the kernel may end whoever does it.  Raises Failure where nothing is lost."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            libc.madvise(address & -4096, size, MADV_HWPOISON)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise Failure("madvise(MADV_HWPOISON) fails: CAP_SYS_ADMIN is needed, and CONFIG_MEMORY_FAILURE")


def frame_number(ram: GuestRam, gpa: int) -> int | None:
    """The host's page frame that this process has mapped there (/proc/self/pagemap); None: none."""
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        entry = int.from_bytes(os.pread(file.fileno(), 8, (ram.hva + gpa - ram.gpa) // 4096 * 8), "little")
    return entry & (1 << 55) - 1 if entry >> 63 else None
