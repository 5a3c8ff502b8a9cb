"""The thread of a vCPU: it alone runs it, reads its signals, and touches its registers.

running --an exit, or asked for and kicked--> out (told to the core) --jobs of other threads--> --Release--> running
"""

from __future__ import annotations

import queue
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from vmm_ras import arm64
from vmm_ras.errors import GuestError, RasError
from vmm_ras.events import VcpuState
from vmm_ras.io.kvm import inject
from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.io.sigbus import KICK, SIGNALS, SignalFile, block_signals

if TYPE_CHECKING:
    from vmm_ras.io.kvm.guest import KvmGuest

MAX_SERRORS = 16
"""For one vCPU, while one is pending."""
JOB_SECONDS = 30.0
"""A vCPU that is out does what it is asked for at once; no longer than this is waited for it."""
_TRIES = 16


class Frozen(GuestError):
    """The guest is moving: its core takes no further event here."""


class VcpuThread(threading.Thread):
    """One vCPU.  ``out`` and ``asked`` belong to who holds the guest's lock."""

    def __init__(self, guest: KvmGuest, vcpu: Vcpu) -> None:
        super().__init__(name=f"vcpu{vcpu.index}", daemon=True)
        self.guest, self.vcpu = guest, vcpu
        self.out = False
        """Out of the guest until it is released."""
        self.asked = False
        """To come out, by the core."""
        self.at_access = False
        """It stands at the access that the host refused it."""
        self.serrors: deque[tuple[int | None, int]] = deque()
        """(source, syndrome) of the SError that is pending, and behind it of those that wait for their turn."""
        self.paused = False
        """Out of the guest while ``KvmGuest.paused``, and it does what others ask for."""
        self.came_held = False
        """Its guest came from another host while it stood at an access that was refused there."""
        self.ready = threading.Event()
        self.ended = ""
        """Why it runs no more."""
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any] | None]] = queue.SimpleQueue()

    def run(self) -> None:
        """Run the vCPU until the guest ends, or it fails."""
        block_signals()
        signals = SignalFile()
        try:
            self.vcpu.admit_signals(SIGNALS)
            self.ready.set()
            self.guest.started.wait()
            if self.came_held:
                self._access_again(signals)
            while not self.guest.ending:
                self._come_out()
                if not self.guest.ending and not self._enter(signals):
                    self.ended = "the guest ended it"
                    break
        except (RasError, OSError) as error:
            self.ended = str(error)
        finally:
            self.ended = self.ended or "the guest has ended"
            self.ready.set()
            signals.close()
            self.guest.vcpu_ended(self)
            self._refuse()

    def _enter(self, signals: SignalFile) -> bool:
        """KVM_RUN until the next exit, and what becomes of that; False: the vCPU ends."""
        reason = self.vcpu.run()
        try:
            return self.guest.take_exit(self, reason, signals)
        except Frozen:
            self.vcpu.undo(reason)
            raise

    def _access_again(self, signals: SignalFile) -> None:
        """Let the host refuse the access once more: only then KVM knows FAR.  Nothing else of the guest is executed."""
        vcpu, pc, pstate = self.vcpu, self.vcpu.get(inject.PC), self.vcpu.get(inject.PSTATE)
        vcpu.set(inject.PSTATE, pstate | arm64.PSTATE_DAIF)
        for _ in range(_TRIES):
            reason = vcpu.run()
            self.at_access = self.guest.is_refused(self, reason, signals)
            if self.at_access:
                break
        vcpu.set(inject.PSTATE, pstate)
        if not self.at_access or vcpu.get(inject.PC) != pc:
            raise GuestError(f"vCPU {vcpu.index}: the access at {pc:#x} was refused elsewhere, and is not refused here")

    def kick(self) -> None:
        """Take it out of KVM_RUN, now or as soon as it enters."""
        if self.ident is not None and self.is_alive():
            signal.pthread_kill(self.ident, KICK)

    def do(self, job: Callable[[], Any]) -> Any:
        """What ``job`` gives, done in this vCPU's thread.  Raises what it raises, GuestError if the vCPU is not out."""
        if not (self.out or (self.paused and self.guest.pausing)) or self.ended:
            raise GuestError(f"vCPU {self.vcpu.index} is not stopped")
        if threading.current_thread() is self:
            return job()
        done: Future[Any] = Future()
        self._jobs.put((job, done))
        if self.ended:  # meanwhile: nobody takes it any more
            self._refuse()
        try:
            return done.result(JOB_SECONDS)
        except TimeoutError:
            raise GuestError(f"vCPU {self.vcpu.index} does not answer") from None

    def state(self) -> VcpuState:
        """In its own thread: what the core decides by."""
        return self.vcpu.state()._replace(far_known=self.at_access)

    def release(self) -> None:
        """It may enter the guest; the lock is held."""
        self.out = self.at_access = False
        if threading.current_thread() is not self:
            self._jobs.put((lambda: None, None))

    def wake(self) -> None:
        """Let it look whether the guest ends."""
        self.kick()
        self._jobs.put((lambda: None, None))

    def pend_serror(self, source: int | None, vsesr: int) -> None:
        """In its own thread: make an SError pending, or let it wait until the one before it is taken.

        One that a source still waits to have told is not made twice: the second would find no record.
        """
        self.next_serror()
        if source is not None and any(source == waiting for waiting, _ in self.serrors):
            return
        if len(self.serrors) > MAX_SERRORS:
            raise GuestError(f"vCPU {self.vcpu.index}: {MAX_SERRORS} SErrors wait already")
        if not self.serrors and not inject.pend_serror(self.vcpu, vsesr):
            self.serrors.append((None, 0))  # one is pending that nobody here made
        self.serrors.append((source, vsesr))

    def next_serror(self) -> None:
        """In its own thread: if the SError that was pending is taken, it is the next one's turn."""
        if self.serrors and not self.vcpu.events().serror_pending:
            self.serrors.popleft()
            if self.serrors:
                inject.pend_serror(self.vcpu, self.serrors[0][1])

    def _come_out(self) -> None:
        if self.serrors:
            self.next_serror()
        while not self.guest.ending:
            if self.asked:
                self.guest.come_out(self)
            self.paused = self.guest.pausing
            if not (self.out or self.paused):
                break
            job, done = self._jobs.get()
            self._perform(job, done)

    @staticmethod
    def _perform(job: Callable[[], Any], done: Future[Any] | None) -> None:
        if done is None:
            job()
            return
        try:
            done.set_result(job())
        except (RasError, OSError) as error:
            done.set_exception(error)

    def _refuse(self) -> None:
        while True:
            try:
                _, done = self._jobs.get_nowait()
            except queue.Empty:
                return
            if done is not None:
                done.set_exception(GuestError(f"vCPU {self.vcpu.index} has ended"))
