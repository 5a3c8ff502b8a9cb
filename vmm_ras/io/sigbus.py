"""SIGBUS of a live VMM: signals read from files; pages whose signal was lost found again (prctl(2), signal(7)).

* BUS_MCEERR_AO goes to the thread that asked for early kill, and is read there.
* BUS_MCEERR_AR of a vCPU is sent to its thread while it is inside KVM_RUN: there SIGBUS is blocked but for the time of
  KVM_RUN (KVM_SET_SIGNAL_MASK), which returns EINTR, and the thread reads its own signal.  Nothing else survives poison
  that it touches: where the VMM itself uses lost memory through a mapping, the kernel ends it.
* A standard signal that is pending takes no second one: what was lost meanwhile is looked up in the page tables.

No handler is installed, so no Python code runs in one.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

from vmm_ras.events import Code, HostSignal
from vmm_ras.io import libc
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.kvm.siginfo import SIGBUS, SignalfdSiginfo

KICK = signal.SIGUSR1
"""Takes a vCPU out of KVM_RUN; blocked everywhere else."""
SIGNALS = frozenset({SIGBUS, int(KICK)})
MIN_SHIFT = 12
"""log2 of the least that is lost: whatever a signal says, memory is lost by pages."""
_PAGEMAP_ENTRY = 8
_NOT_PRESENT_BUT_THERE = re.compile(rb"[\x40-\x7f]")
"""Byte 7 of an entry of /proc/PID/pagemap: bit 63 (present) clear, bit 62 (swap) set; a lost page is such a one."""
_CHUNK_PAGES = 1 << 16


def block_signals() -> None:
    """Of the calling thread, and of those that it starts from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


class SignalFile:
    """The signals that are pending for the thread that reads.  They must be blocked there."""

    def __init__(self) -> None:
        self.fd = libc.signalfd(SIGNALS)

    def read(self) -> list[SignalfdSiginfo]:
        """All that are pending now; of those with one number there is one, the first."""
        found: list[SignalfdSiginfo] = []
        while True:
            try:
                data = os.read(self.fd, SignalfdSiginfo.SIZE)
            except BlockingIOError:
                return found
            found.append(SignalfdSiginfo.decode(data))

    def close(self) -> None:
        """Close the file; it may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def host_signal(info: SignalfdSiginfo, tid: int, time: float | None) -> HostSignal | None:
    """What the core is told of a signal; None: it is none of lost memory."""
    if info.signo != SIGBUS or info.code not in (Code.AR, Code.AO):
        return None
    return HostSignal(Code(info.code), info.addr, max(info.addr_lsb, MIN_SHIFT), tid, time)


def lost_pages(ram: GuestRam) -> Iterator[int]:
    """Guest physical address of every page of the host that is lost, as the process' page tables know it.

    A page that was never mapped is not among them: whoever touches it gets BUS_MCEERR_AR.  Raises OSError.
    """
    if ram.huge:
        yield from (gpa for gpa in range(ram.gpa, ram.gpa + ram.size, ram.granule) if ram.is_lost(gpa))
        return
    pages, first = ram.size // ram.granule, ram.hva // ram.granule
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        for start in range(0, pages, _CHUNK_PAGES):
            count = min(_CHUNK_PAGES, pages - start)
            entries = os.pread(file.fileno(), _PAGEMAP_ENTRY * count, _PAGEMAP_ENTRY * (first + start))
            for found in _NOT_PRESENT_BUT_THERE.finditer(entries[_PAGEMAP_ENTRY - 1 :: _PAGEMAP_ENTRY]):
                gpa = ram.gpa + (start + found.start()) * ram.granule
                if ram.is_lost(gpa):  # else it is on its way from one place to another
                    yield gpa
