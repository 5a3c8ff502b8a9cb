"""A guest on KVM as an adapter: it carries out the core's effects, as ``vmm_ras.guests.model`` does for the model.

One lock per machine is around the core.  Each vCPU has its own thread (``thread``), and one more hears of lost memory
that nobody used, and does what is due (``service``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from vmm_ras.effects import (
    ArmAck,
    Effect,
    InjectSea,
    InjectSerror,
    PollAck,
    RaiseLine,
    Release,
    Reply,
    SetRegisters,
    Stop,
    WriteGuest,
)
from vmm_ras.errata import is_discovery
from vmm_ras.errors import GuestError, HostError
from vmm_ras.events import AckRead, Code, Event, Failed, GuestCall, HostSignal, MemoryFault, Replaced, Stopped
from vmm_ras.guests.carrying import carry_out
from vmm_ras.io import sigbus
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm import inject
from vmm_ras.io.kvm.service import Service
from vmm_ras.io.kvm.thread import Frozen, VcpuThread
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.kvm import events, ioctls
from vmm_ras.kvm.siginfo import SIGBUS
from vmm_ras.memory import HEALTHY, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.sdei import is_sdei
from vmm_ras.sdei_table import NOT_SUPPORTED

END_SECONDS = PAUSE_SECONDS = 30.0
ACCESSES = (ioctls.EXIT_MMIO, ioctls.EXIT_ARM_NISV)
Exit = Callable[[VcpuThread, int], bool]


class KvmGuest:
    """A machine with its RAM and its core.

    ``take``: what the VMM does with every exit that is not the core's, in the vCPU's thread, without the lock; False
    ends the vCPU.  ``raise_line``: pulse an interrupt (kind and number of RaiseLine).  ``heard`` is told every list of
    effects once it was carried out, under the lock, and ``ended`` every vCPU that runs no more.
    """

    def __init__(
        self, vm: Vm, ram: GuestRam, core: Notifier, take: Exit, *,
        raise_line: Callable[[str, int], None] | None = None,
        heard: Callable[[Sequence[Effect]], object] = lambda effects: None,
        ended: Callable[[VcpuThread], object] = lambda thread: None,
    ) -> None:  # fmt: skip
        self.vm, self.ram, self.core = vm, ram, core
        self._take, self._raise_line, self._heard, self._ended = take, raise_line or self._pulse, heard, ended
        self.lock = threading.RLock()
        self.started = threading.Event()
        self.ending = self.frozen = self.pausing = False
        self.vcpus = [VcpuThread(self, vcpu) for vcpu in vm.vcpus]
        self.service = Service(self)

    # -- begin and end ------------------------------------------------------------------

    def start(self, effects: Sequence[Effect] = ()) -> None:
        """Run the vCPUs.  SIGBUS is blocked in the calling thread from now on.  Raises HostError.

        ``effects``: what a core that was restored still asks for; it is carried out before any other event.
        """
        self.core.sdei.use(inject.features_of(self.vm.vcpus[0]))
        sigbus.block_signals()
        self.service.begin()
        for thread in self.vcpus:
            thread.start()
        for thread in self.vcpus:
            thread.ready.wait()
        with self.lock:
            self.core.threads |= {t.native_id: t.vcpu.index for t in self.vcpus if t.native_id is not None}
            self.started.set()
            self._drive(list(effects))

    def end(self) -> None:
        """Take every vCPU out for good, and end the threads; machine and RAM stay.  It may be called twice."""
        self.ending = True
        self.started.set()
        self.service.poke()
        own = threading.current_thread()
        for thread in [t for t in self.vcpus if t.is_alive() and t is not own]:
            until = time.monotonic() + END_SECONDS
            while thread.is_alive() and time.monotonic() < until:
                thread.wake()
                thread.join(0.05)
        self.service.end(END_SECONDS)

    def freeze(self) -> None:
        """Take every vCPU out for good, in the middle of whatever it does: nothing reaches the core any more.

        What a vCPU came out for meanwhile happens again where its guest goes on.
        """
        with self.lock:
            self.frozen = self.ending = True
        self.end()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every vCPU is out of the guest, and no event is on its way to the core; the lock is held.  Raises HostError.

        ``VcpuThread.do`` does something in a vCPU's thread meanwhile.
        """
        until = time.monotonic() + PAUSE_SECONDS
        self.pausing = True
        try:
            while True:
                for thread in self.vcpus:
                    thread.wake()
                with self.lock:
                    if all((t.paused and not t.asked) or t.ended for t in self.vcpus):
                        yield
                        return
                if time.monotonic() > until:
                    raise HostError(f"the vCPUs do not come out within {PAUSE_SECONDS:.0f} s")
                time.sleep(0.001)
        finally:
            self.pausing = False
            for thread in self.vcpus:
                thread.wake()

    def join(self, seconds: float | None = None) -> bool:
        """Wait until no vCPU runs; whether that is so."""
        until = None if seconds is None else time.monotonic() + seconds
        for thread in self.vcpus:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(t.is_alive() for t in self.vcpus)

    def replace_lost(self) -> list[tuple[int, int]]:
        """Give the guest good, zeroed memory for all that it has lost (a reset): (gpa, size) of each.

        Raises HostError where the host does not give it.
        """
        with self.lock:
            ram, shift, done = self.ram, self.core.page_shift, list[tuple[int, int]]()
            lost = [(first << shift, count << shift) for first, count, state, _ in self.core.poison.runs()
                    if state != HEALTHY]  # fmt: skip
            lost += [*ram.holes, *((gpa, ram.granule) for gpa in sigbus.lost_pages(ram))]
            for gpa, size in lost:
                if ram.gpa <= gpa < ram.gpa + ram.size and not any(a <= gpa and gpa + size <= a + n for a, n in done):
                    done.append(ram.replace(gpa, size))
                    self.vm.mend(MemorySlot(ram.hva + done[-1][0] - ram.gpa, *done[-1]))
                    self.service.forget(*done[-1])
                    self.receive(Replaced(*done[-1]))
            return done

    # -- events -------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        """Give the core an event, and carry out what follows.  From any thread.  Raises Frozen."""
        with self.lock:
            if self.frozen:
                raise Frozen("the guest is moving")
            self._drive(self.core.receive(event, time.monotonic()))
        self.service.poke()

    def _drive(self, effects: list[Effect]) -> None:
        while effects:
            answers = carry_out(effects, self._one, (GuestError, HostError, OSError))
            self._heard(effects)
            now = time.monotonic()
            effects = [e for answer in answers for e in self.core.receive(answer, now)]

    def expire(self) -> None:
        """Let the core do what is due."""
        with self.lock:
            due, now = self.core.next_deadline(), time.monotonic()
            if due is not None and due <= now and not self.frozen:
                self._drive(self.core.expire(now))

    # -- what a vCPU's thread asks for -------------------------------------------------------

    def come_out(self, thread: VcpuThread) -> None:
        """The core asked for the vCPU; in its thread."""
        with self.lock:
            thread.asked, thread.out = False, True
            thread.vcpu.settle_access()
            self.receive(Stopped(thread.vcpu.index, thread.state()))

    def take_exit(self, thread: VcpuThread, reason: int, signals: sigbus.SignalFile) -> bool:
        """An exit of KVM_RUN, in the vCPU's thread; False: the vCPU ends."""
        vcpu, now = thread.vcpu, time.time()
        if reason in ACCESSES and self.ram.holes:
            found = self._in_hole(thread, reason, now)
            if found is not None:
                vcpu.undo(reason)
                self._consumed(thread, found)
                return True
        if reason == ioctls.EXIT_INTR:
            for info in signals.read():
                found = sigbus.host_signal(info, threading.get_native_id(), now)
                if found is not None:
                    self._consumed(thread, found)
        elif reason == events.EXIT_ARM_SEA:
            self.receive(vcpu.arm_sea().event(vcpu.index, now))
        elif reason == events.EXIT_MEMORY_FAULT:
            fault = vcpu.memory_fault().event(now)
            slot = next((s for s in self.vm.slots if s.gpa <= fault.gpa < s.gpa + s.size), None)
            if slot is None or not (vcpu.lost or self.ram.is_lost(fault.gpa)):
                raise GuestError(f"vCPU {vcpu.index}: the host has no memory at {fault.gpa:#x}")
            self._consumed(thread, _of_fault(fault, slot))
        elif reason == ioctls.EXIT_HYPERCALL:
            self._call(thread)
        else:
            return self._take(thread, reason)
        return True

    def is_refused(self, thread: VcpuThread, reason: int, signals: sigbus.SignalFile) -> bool:
        """Whether the vCPU came out because it used memory that is lost; in its thread.  The core is told nothing."""
        if reason in ACCESSES and self._in_hole(thread, reason, 0.0) is not None:
            thread.vcpu.undo(reason)
            return True
        if reason == ioctls.EXIT_INTR:
            return any(info.signo == SIGBUS and info.code == Code.AR for info in signals.read())
        return reason == events.EXIT_MEMORY_FAULT and thread.vcpu.lost

    def _in_hole(self, thread: VcpuThread, reason: int, now: float) -> HostSignal | None:
        """What an access to a hole of memory is that the machine was cut at: poison that the vCPU consumed."""
        ram = self.ram
        gpa = thread.vcpu.fault_ipa() if reason == ioctls.EXIT_ARM_NISV else thread.vcpu.mmio().phys_addr
        if not any(first <= gpa < first + size for first, size in ram.holes):
            return None
        return HostSignal(Code.AR, ram.hva + gpa - ram.gpa, sigbus.MIN_SHIFT, threading.get_native_id(), now)

    def _consumed(self, thread: VcpuThread, found: HostSignal) -> None:
        with self.lock:
            own = self.core.memory.slot_of(found.hva) is None
            thread.at_access = found.code == Code.AR and not own
            self.receive(found)
        if own and found.code == Code.AR:
            raise GuestError(f"vCPU {thread.vcpu.index} needs lost memory at {found.hva:#x}, which no slot holds")

    def _call(self, thread: VcpuThread) -> None:
        vcpu = thread.vcpu
        state = vcpu.state()
        if not (is_sdei(state.x[0]) or is_discovery(state.x[0])):
            inject.reply(vcpu, NOT_SUPPORTED)
            return
        with self.lock:
            thread.out = True
            self.receive(GuestCall(vcpu.index, state.x[0], state.x[1:6], state))

    def vcpu_ended(self, thread: VcpuThread) -> None:
        """In its thread: it runs no more."""
        with self.lock:
            stop = self.core.stopping.get(thread.vcpu.index)
            if stop is not None and not self.ending:
                self.receive(Failed(stop, f"vCPU {thread.vcpu.index}: {thread.ended}"))
        self._ended(thread)

    # -- effects ------------------------------------------------------------------------

    def _one(self, e: Effect) -> Event | None:
        if isinstance(e, WriteGuest):
            self.ram.write(e.gpa, e.data)
        elif isinstance(e, PollAck):
            return AckRead(e.id, e.source_id, int.from_bytes(self.ram.read(e.gpa, e.size), "little"))
        elif isinstance(e, ArmAck):
            self.ram.update_word(e.gpa, ~e.mask, 0)
        elif isinstance(e, RaiseLine):
            self._raise_line(e.kind, e.number)
        elif isinstance(e, Stop | Release | InjectSea | InjectSerror | SetRegisters | Reply):
            return self._of_vcpu(e, self.vcpus[e.vcpu])
        return None  # a notice, which ``heard`` says

    def _of_vcpu(
        self, e: Stop | Release | InjectSea | InjectSerror | SetRegisters | Reply, thread: VcpuThread
    ) -> Event | None:
        vcpu = thread.vcpu
        if isinstance(e, Stop):
            return self._stop(thread)
        if isinstance(e, Release):
            if thread.out:
                thread.release()
        elif isinstance(e, InjectSea):
            thread.do(lambda: inject.take_sea(vcpu, e.esr, e.far, thread.at_access))
        elif isinstance(e, InjectSerror):
            thread.do(lambda: thread.pend_serror(e.source_id, e.vsesr))
        elif isinstance(e, SetRegisters):
            thread.do(lambda: inject.set_registers(vcpu, e))
        else:
            thread.do(lambda: inject.reply(vcpu, e.x0))
        return None

    def _stop(self, thread: VcpuThread) -> Event | None:
        if thread.ended:
            raise GuestError(f"vCPU {thread.vcpu.index}: {thread.ended}")
        if threading.current_thread() is thread and not thread.out:
            thread.out = True
            thread.vcpu.settle_access()
        if thread.out:
            return Stopped(thread.vcpu.index, thread.do(thread.state))
        thread.asked = True
        thread.wake()
        return None

    def _pulse(self, kind: str, number: int) -> None:
        if kind != "gsiv":
            raise GuestError(f"the machine has no {kind} line")
        for level in (True, False):
            self.vm.set_line(number, level)


def _of_fault(fault: MemoryFault, slot: MemorySlot) -> HostSignal:
    """KVM_EXIT_MEMORY_FAULT of lost memory: the vCPU consumed it."""
    hva = slot.hva + fault.gpa - slot.gpa
    lsb = max(sigbus.MIN_SHIFT, fault.size.bit_length() - 1)
    return HostSignal(Code.AR, hva, lsb, threading.get_native_id(), fault.time)
