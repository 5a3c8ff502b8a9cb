"""The thread that hears of memory which is lost and was not used (BUS_MCEERR_AO), and watches the core's clock.

The kernel tells one thread of a process: the first that asked for early kill.  So whichever machine's thread hears of a
page gives it to the machine that has it; and then every machine looks for pages whose signal was lost.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from vmm_ras.errors import HostError
from vmm_ras.events import Code, HostSignal
from vmm_ras.io import libc, sigbus
from vmm_ras.io.kvm.thread import Frozen
from vmm_ras.kvm.siginfo import SIGBUS
from vmm_ras.memory import HEALTHY

if TYPE_CHECKING:
    from vmm_ras.io.kvm.guest import KvmGuest

SERROR_LOOK = 0.02
"""Seconds between looks whether an SError was taken, while another one waits for its turn."""
_services: list[Service] = []
_lock = threading.Lock()


class Service(threading.Thread):
    """Of one machine."""

    def __init__(self, guest: KvmGuest) -> None:
        super().__init__(name="memory-errors", daemon=True)
        self.guest = guest
        self.signals = self.found_again = 0
        """SIGBUS that came; pages of this machine that were found without one."""
        self._known: set[int] = set()
        """Lost pages of the host that the core was told of."""
        self._ready = threading.Event()
        self._failure: OSError | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def begin(self) -> None:
        """Start, and wait until it hears.  Raises HostError."""
        self.start()
        self._ready.wait()
        if self._failure is not None:
            raise HostError(f"memory errors cannot be heard of: {self._failure}")

    def end(self, seconds: float) -> None:
        """Wait until it has ended: the guest has.  It may be called twice, and from the thread itself."""
        if self.is_alive() and threading.current_thread() is not self:
            self.join(seconds)
        with _lock:
            if self._wake >= 0 and not self.is_alive():
                os.close(self._wake)
                self._wake = -1

    def poke(self) -> None:
        """Let it look at the clock anew."""
        if threading.current_thread() is not self:
            with _lock:
                if self._wake >= 0:
                    os.eventfd_write(self._wake, 1)

    def forget(self, gpa: int, size: int) -> None:
        """These pages were replaced."""
        self._known -= {page for page in self._known if gpa <= page < gpa + size}

    def run(self) -> None:
        """Hear, look and do what is due, until the guest ends."""
        sigbus.block_signals()
        try:
            libc.prefer_early_kill()
            signals = sigbus.SignalFile()
        except OSError as error:
            self._failure = error
            self._ready.set()
            return
        with _lock:
            _services.append(self)
        self._ready.set()
        poll = select.poll()
        for fd in (signals.fd, self._wake):
            poll.register(fd, select.POLLIN)
        try:
            while not self.guest.ending:
                poll.poll(self._patience())
                self._drain()
                self._hear(signals)
                self.guest.expire()
                for thread in self.guest.vcpus:
                    if len(thread.serrors) > 1:
                        thread.kick()
            self._hear(signals)
        finally:
            with _lock:
                _services.remove(self)
            signals.close()

    def _patience(self) -> float | None:
        """Milliseconds until something is due."""
        with self.guest.lock:
            due = self.guest.core.next_deadline()
        waits = [] if due is None else [max(0.0, due - time.monotonic())]
        if any(len(thread.serrors) > 1 for thread in self.guest.vcpus):
            waits.append(SERROR_LOOK)
        return 1000 * min(waits) + 1 if waits else None

    def _drain(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return

    def _hear(self, signals: sigbus.SignalFile) -> None:
        infos = [info for info in signals.read() if info.signo == SIGBUS]
        if not infos:
            return
        self.signals += len(infos)
        tid = threading.get_native_id()
        with _lock:
            others = [service for service in _services if not service.guest.ending]
        for info in infos:
            found = sigbus.host_signal(info, tid, time.time())
            if found is not None:
                owner = next((s for s in others if s.guest.core.memory.slot_of(found.hva) is not None), self)
                owner._tell(found)
        for service in others:
            service._look(tid)

    def _tell(self, found: HostSignal) -> None:
        ram = self.guest.ram
        offset = found.hva - ram.hva
        if 0 <= offset < ram.size:
            self._known.add(ram.gpa + offset & -ram.granule)
        with suppress(Frozen):  # it is found again, where the guest goes to
            self.guest.receive(found)

    def _look(self, tid: int) -> None:
        """Tell the core of lost pages that no signal named: another one was pending."""
        ram, core = self.guest.ram, self.guest.core
        for gpa in sigbus.lost_pages(ram):
            if gpa not in self._known and core.poison.state(gpa >> core.page_shift) == HEALTHY:
                self.found_again += 1
                lsb = ram.granule.bit_length() - 1
                self._tell(HostSignal(Code.AO, ram.hva + gpa - ram.gpa, lsb, tid, time.time()))
            self._known.add(gpa)
