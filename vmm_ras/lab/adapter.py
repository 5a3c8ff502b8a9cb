"""A real Linux under emulation as an adapter: it carries out the core's effects, as ``vmm_ras.guests.model`` does."""

from __future__ import annotations

import time

from vmm_ras.effects import (
    Acked,
    ArmAck,
    Effect,
    Escalate,
    InjectSea,
    PollAck,
    Posted,
    RaiseLine,
    Release,
    Stop,
    TakenBack,
    WriteGuest,
)
from vmm_ras.errors import GuestError
from vmm_ras.events import AckRead, Done, Event, Failed, Stopped
from vmm_ras.lab import inject
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.qemu import Qemu
from vmm_ras.lab.wait import Deadline
from vmm_ras.notifier import Notifier

FIRST_SPI = 32


class QemuGuest:
    """Effects become writes into shared RAM, exceptions through the debugger stub, interrupts through qtest.

    Only vCPUs that :meth:`trap` stopped are ever stopped: what the lab replays is an access of a known instruction.
    """

    def __init__(self, qemu: Qemu, notifier: Notifier, gpio_gsiv: int = 0) -> None:
        """``gpio_gsiv``: the event device's interrupt, by which GPIO sources are told."""
        self.qemu, self.notifier, self.gpio_gsiv = qemu, notifier, gpio_gsiv
        self.seen: list[Effect] = []
        """Every effect so far, in order."""
        self._trapped: dict[int, int] = {}
        """Stopped vCPU to the guest physical address of the instruction that it stands before."""
        self._running = True
        self._gic = qemu.interrupt_controller()

    # -- the host's side -----------------------------------------------------------------

    def trap(self, pc: int, text: int, va: int, seconds: float = 20) -> int:
        """Stop the guest before the instruction at ``pc`` (guest physical ``text``) that reads ``va``; its vCPU.

        Raises Failure where nobody comes there, or somebody who reads another page.
        """
        debugger = self.qemu.debugger
        debugger.interrupt()
        debugger.add_breakpoint(pc)
        debugger.resume()
        vcpu = debugger.wait(seconds, f"nobody comes to {pc:#x}")
        debugger.remove_breakpoint(pc)
        self._running = False
        if debugger.read("pc") != pc:
            raise Failure(f"vCPU {vcpu} stopped at {debugger.read('pc'):#x}, not at {pc:#x}")
        if va not in (debugger.read(f"x{number}") for number in range(31)):
            raise Failure(f"vCPU {vcpu} stopped at {pc:#x}, but no register holds {va:#x}")
        self._trapped[vcpu] = text
        return vcpu

    def receive(self, event: Event) -> list[Effect]:
        """Give the core an event, and carry out whatever follows from it at once."""
        return self._drive(self.notifier.receive(event, time.monotonic()))

    def settle(self, posts: int, seconds: float) -> list[Posted]:
        """Run until that many blocks were posted and all of them acknowledged; the blocks.  Raises Failure."""
        deadline = Deadline(seconds, f"{posts} blocks posted and acknowledged")
        while True:
            posted = [e for e in self.seen if isinstance(e, Posted)]
            if len(posted) >= posts and len(posted) == sum(isinstance(e, Acked) for e in self.seen):
                return posted
            refused = next((e for e in self.seen if isinstance(e, Escalate | TakenBack)), None)
            if refused is not None:
                raise Failure(f"the guest was not told: {refused.reason}")
            deadline.check()
            due = self.notifier.next_deadline()
            now = time.monotonic()
            time.sleep(min(0.05, max(0.001, (due or now) - now)))
            self._drive(self.notifier.expire(time.monotonic()))

    # -- effects ------------------------------------------------------------------------

    def _drive(self, effects: list[Effect]) -> list[Effect]:
        seen: list[Effect] = []
        while effects:
            seen += effects
            answers = self.perform(effects)
            effects = [e for answer in answers for e in self.notifier.receive(answer, time.monotonic())]
        self.seen += seen
        return seen

    def perform(self, effects: list[Effect]) -> list[Event]:
        """Carry out a list of effects in order; the answers."""
        out: list[Event] = []
        failed: set[int | None] = set()
        for e in effects:
            source = getattr(e, "source_id", None)
            if source in failed:
                continue
            try:
                answer = self._perform(e)
            except GuestError as error:
                failed.add(source)
                answer = Failed(e.id, str(error))
            if answer is not None:
                out.append(answer)
        if effects:
            out.append(Done(effects[-1].id))
        return out

    def _perform(self, e: Effect) -> Event | None:
        ram = self.qemu.ram
        if isinstance(e, WriteGuest):
            ram.write(e.gpa, e.data)
        elif isinstance(e, ArmAck):
            value = int.from_bytes(ram.read(e.gpa, 8), "little")
            ram.write(e.gpa, (value & ~e.mask).to_bytes(8, "little"))
        elif isinstance(e, PollAck):
            return AckRead(e.id, e.source_id, int.from_bytes(ram.read(e.gpa, e.size), "little"))
        elif isinstance(e, Stop):
            self._select(e.vcpu)
            return Stopped(e.vcpu, inject.state(self.qemu.debugger))
        elif isinstance(e, InjectSea):
            text = self._select(e.vcpu)
            inject.take_sea(self.qemu.debugger, text, e.esr, e.far)
        elif isinstance(e, Release):
            self._trapped.pop(e.vcpu, None)
            if not self._trapped and not self._running:
                self._running = True
                self.qemu.debugger.resume()
        elif isinstance(e, RaiseLine):
            gsiv = e.number if e.kind == "gsiv" else self.gpio_gsiv
            for level in (True, False):
                self.qemu.qtest.set_line(self._gic, gsiv - FIRST_SPI, level)
        return None

    def _select(self, vcpu: int) -> int:
        """Let the debugger speak to a stopped vCPU; where the instruction lies that it stands before."""
        if vcpu not in self._trapped:
            raise GuestError(f"vCPU {vcpu} is not stopped")
        self.qemu.debugger.select(vcpu)
        return self._trapped[vcpu]
