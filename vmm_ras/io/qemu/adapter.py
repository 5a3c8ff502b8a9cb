"""A real Linux under emulation as an adapter: it carries out the core's effects, as ``vmm_ras.guests.model`` does."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

from cper.words import counted
from vmm_ras.arm64 import PSTATE_M
from vmm_ras.effects import (
    Acked,
    ArmAck,
    Effect,
    Escalate,
    InjectSea,
    InjectSerror,
    PollAck,
    Posted,
    RaiseLine,
    Release,
    Reply,
    SetRegisters,
    Stop,
    TakenBack,
    WriteGuest,
)
from vmm_ras.errors import GuestError
from vmm_ras.events import AckRead, Event, GuestCall, Stopped
from vmm_ras.guests.carrying import carry_out
from vmm_ras.io.qemu import inject
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.machine import Machine
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.notifier import Notifier
from vmm_ras.sdei import is_sdei

FIRST_SPI = 32
_NOBODY = -1
MAX_STOPS = 200
"""Tries of stopping a vCPU in the kernel."""


class QemuGuest:
    """Effects become writes into shared RAM, exceptions through the debugger stub, interrupts through qtest.

    An SEA is for a vCPU that :meth:`trap` stopped, at an access of a known instruction; for an SDEI event any vCPU is
    stopped while it is in the kernel.
    """

    def __init__(self, qemu: Machine, notifier: Notifier, gpio_gsiv: int = 0, sites: Sequence[int] = ()) -> None:
        """``gpio_gsiv``: the event device's interrupt, by which GPIO sources are told.  ``sites``: of SDEI calls."""
        self.qemu, self.notifier, self.gpio_gsiv, self.sites = qemu, notifier, gpio_gsiv, sites
        self.seen: list[Effect] = []
        """Every effect so far, in order."""
        self._trapped: dict[int, int] = {}
        """Stopped vCPU to the guest physical address of the instruction that it stands before."""
        self.calls = 0
        """SDEI calls that were answered."""
        self._running = True
        self._gic = qemu.interrupt_controller()

    # -- the host's side -----------------------------------------------------------------

    def trap(self, pc: int, text: int, va: int, seconds: float = 20) -> int:
        """Stop the guest before the instruction at ``pc`` (guest physical ``text``) that reads ``va``; its vCPU.

        Others who come to the same instruction go on.  Raises Failure where nobody comes there for that page.
        """
        return self._trap(pc, text, seconds, lambda: va in self._registers(), f"with {va:#x} in a register")

    def trap_in_kernel(self, pc: int, va: int, seconds: float = 20) -> int:
        """Stop the guest at a system call's first instruction at ``pc``, made by whoever holds ``va``; its vCPU.

        Linux' calls take the user's registers by reference, in X0.  Raises Failure.
        """

        def ours() -> bool:
            saved = self.qemu.debugger.read_memory(self.qemu.debugger.read("x0"), 8 * 31)
            return va in struct.unpack("<31Q", saved)

        return self._trap(pc, 0, seconds, ours, f"for a process that holds {va:#x}")

    def trap_user(self, vcpu: int, physical: Callable[[int, int], int], seconds: float = 20) -> int:
        """Stop the guest while the vCPU runs a program, whichever that is; its pc.

        ``physical``: (virtual address, vCPU) to the guest physical one.  Raises Failure.
        """
        debugger, deadline = self.qemu.debugger, Deadline(seconds, f"vCPU {vcpu} runs no program")
        while True:
            self.stand_still()
            debugger.select(vcpu)
            if not debugger.read("cpsr") & PSTATE_M:
                pc = debugger.read("pc")
                self._running, self._trapped[vcpu] = False, physical(pc, vcpu)
                return pc
            debugger.resume()
            deadline.check()
            time.sleep(0.003)

    def _trap(self, pc: int, text: int, seconds: float, ours: Callable[[], bool], who: str) -> int:
        debugger, deadline = self.qemu.debugger, Deadline(seconds, f"nobody comes to {pc:#x} {who}")
        self.stand_still()
        debugger.add_breakpoint(pc)
        try:
            while True:
                deadline.check()
                debugger.resume()
                vcpu = debugger.wait(deadline.left, deadline.what)
                at = debugger.read("pc")
                if at in self.sites:
                    self._answer(vcpu, resume=False)
                elif at != pc:
                    raise Failure(f"vCPU {vcpu} stopped at {at:#x}, not at {pc:#x}")
                elif ours():
                    break
                else:
                    debugger.remove_breakpoint(pc)
                    debugger.step()
                    debugger.add_breakpoint(pc)
        finally:
            debugger.remove_breakpoint(pc)
        self._running = False
        self._trapped[vcpu] = text
        return vcpu

    def stand_still(self) -> None:
        """Stop every vCPU, wherever it is; a call that one of them stands at is answered first."""
        debugger = self.qemu.debugger
        vcpu = debugger.interrupt()
        while debugger.read("pc") in self.sites:
            self._answer(vcpu, resume=True)
            vcpu = debugger.interrupt()

    def let_go(self) -> None:
        """Let every vCPU that was stopped go on: what was to happen there did not."""
        self._trapped.clear()
        if not self._running:
            self._running = True
            self.qemu.debugger.resume()

    def _registers(self) -> list[int]:
        return [self.qemu.debugger.read(f"x{number}") for number in range(31)]

    def receive(self, event: Event) -> list[Effect]:
        """Give the core an event, and carry out whatever follows from it at once."""
        return self._drive(self.notifier.receive(event, time.monotonic()))

    def expire(self) -> list[Effect]:
        """Let the core do what is due."""
        return self._drive(self.notifier.expire(time.monotonic()))

    def watch_calls(self, on: bool) -> None:
        """Stop wherever SDEI is called, or no longer.  The guest must stand still."""
        for site in self.sites:
            (self.qemu.debugger.add_breakpoint if on else self.qemu.debugger.remove_breakpoint)(site)

    def pump(self, seconds: float) -> None:
        """Wait, and answer the calls that the guest makes in the meantime."""
        deadline = Deadline(seconds, "calls")
        while deadline.left:
            vcpu = self.qemu.debugger.poll(deadline.left)
            if vcpu is not None:
                self._answer(vcpu)

    def _answer(self, vcpu: int, resume: bool = True) -> None:
        """The vCPU stands at a call: answer it; ``resume``: and let all go on."""
        debugger = self.qemu.debugger
        pc = debugger.read("pc")
        if pc not in self.sites:
            raise Failure(f"vCPU {vcpu} stopped at {pc:#x}, where no call is")
        if not is_sdei(debugger.read("x0")):
            debugger.step()
            if resume:
                debugger.resume()
            return
        self._running, self._trapped[vcpu] = False, 0
        if not resume:
            self._trapped[_NOBODY] = 0  # so that no Release lets the guest go
        state = inject.state(debugger)._replace(pc=pc + 4)
        self.calls += 1
        self.receive(GuestCall(vcpu, state.x[0], state.x[1:6], state))
        self._trapped.pop(_NOBODY, None)

    def settle(self, posts: int, seconds: float) -> list[Posted]:
        """Run until that many blocks were posted and all of them acknowledged, and no handler runs; the blocks.

        A guest acknowledges in its SDEI handler, before it completes.  Raises Failure.
        """
        deadline = Deadline(seconds, f"{counted(posts, 'block')} posted and acknowledged")
        while True:
            posted = [e for e in self.seen if isinstance(e, Posted)]
            acked = sum(isinstance(e, Acked) for e in self.seen)
            if len(posted) >= posts and len(posted) == acked and not self._handling():
                return posted
            refused = next((e for e in self.seen if isinstance(e, Escalate | TakenBack)), None)
            if refused is not None:
                raise Failure(f"the guest was not told: {refused.reason}")
            deadline.check()
            due = self.notifier.next_deadline()
            now = time.monotonic()
            self.pump(min(0.05, max(0.001, (due or now) - now)))
            self.expire()

    def _handling(self) -> bool:
        core = self.notifier
        return any(core.sdei.running(vcpu) for vcpu in range(core.vcpus))

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
        return carry_out(effects, self._perform)

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
            if e.vcpu not in self._trapped:
                self._interrupt(e.vcpu)
            self._select(e.vcpu)
            return Stopped(e.vcpu, inject.state(self.qemu.debugger))
        elif isinstance(e, Reply):
            self._select(e.vcpu)
            self.qemu.debugger.write("x0", e.x0 & (1 << 64) - 1)
            self.qemu.debugger.write("pc", self.qemu.debugger.read("pc") + 4)
        elif isinstance(e, SetRegisters):
            self._select(e.vcpu)
            inject.set_registers(self.qemu.debugger, e)
        elif isinstance(e, InjectSea):
            text = self._select(e.vcpu)
            inject.take_sea(self.qemu.debugger, text, e.esr, e.far)
        elif isinstance(e, InjectSerror):
            inject.take_serror(self.qemu.debugger, self._select(e.vcpu), e.vsesr)
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

    def _interrupt(self, vcpu: int) -> None:
        """Stop the vCPU while it is in the kernel: the debugger cannot take it there.  Raises GuestError.

        Where others stand still for what they are told, only this one runs until then.
        """
        debugger, only = self.qemu.debugger, None if self._running else vcpu
        for _ in range(MAX_STOPS):
            if self._running:
                debugger.interrupt()
            debugger.select(vcpu)
            if debugger.read("cpsr") & PSTATE_M:
                self._running, self._trapped[vcpu] = False, 0
                return
            debugger.resume(only)
            time.sleep(0.005)
            if only is not None:
                debugger.interrupt()
        raise GuestError(f"vCPU {vcpu} was never seen in the kernel")

    def _select(self, vcpu: int) -> int:
        """Let the debugger speak to a stopped vCPU; where the instruction lies that it stands before."""
        if vcpu not in self._trapped:
            raise GuestError(f"vCPU {vcpu} is not stopped")
        self.qemu.debugger.select(vcpu)
        return self._trapped[vcpu]
