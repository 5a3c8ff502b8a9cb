"""The tiny guest (``guest/tiny.S``) on real KVM, driven by commands: what it was asked, answered, took, and read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from acpi.image import Image, PlacedSource
from acpi.presets import PRESETS
from vmm_ras.effects import Acked, Effect, InjectSea, InjectSerror, Posted
from vmm_ras.errors import GuestError
from vmm_ras.events import TellSea, TellSerror
from vmm_ras.io.closing import Closing
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm.guest import KvmGuest
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.thread import VcpuThread
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.kvm import ioctls
from vmm_ras.kvm.one_reg import CORE
from vmm_ras.lab.hwpoison import lose
from vmm_ras.lab.tiny_desk import INSTRUCTION, MMIO, Answer, Command, Desk, Skip
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy, load_policy
from vmm_ras.profiles import PROFILES

RAM = 0x4000_0000
SIZE = 16 << 20
TABLES = RAM + (8 << 20)
PAGES = RAM + (1 << 20)
"""From here on the scenarios lose pages."""
BOOTED = 0x3C5
"""PSTATE: EL1h, everything masked."""
SECONDS = 60.0
IMAGE = "tiny.bin"
POLICY = """\
version = 1
[[rule]]
name = "consumed"
when = { code = "AR" }
deliver = ["sea"]
hold_ms = 20000
%s
[[rule]]
name = "found"
when = { code = "AO" }
deliver = %s
"""


def policy(sea: str = "", found: Sequence[str] = ("polled",)) -> Policy:
    """Consumed: SEA with syndrome ``sea`` (TOML).  Found: these ways."""
    return load_policy(POLICY % (f"sea = {sea}" if sea else "", str(list(found)).replace("'", '"')), "tiny")


class TinyGuest(Closing):
    """One machine.  Use it in a ``with`` block."""

    def __init__(
        self, kvm: Kvm, *, vcpus: int = 1, sea: str = "", found: Sequence[str] = ("polled",), preset: str = "all",
        ram: GuestRam | None = None, start: bool = True,
    ) -> None:  # fmt: skip
        self.vm = Vm(kvm)
        self.ram = ram or GuestRam(RAM, SIZE)
        self.vm.add_memory(self.ram.slot)
        self.sdei = self.vm.forward_calls()
        self.code = Path(IMAGE).read_bytes()
        self.image: Image = PRESETS[preset].place(TABLES)
        self.seen: list[Effect] = []
        self.ended: list[str] = []
        self._news = threading.Condition()
        for _ in range(vcpus):
            self.vm.add_vcpu()
        self.boot()
        slots = MemoryMap([self.ram.slot])
        self.core = Notifier(
            self.image.sources, slots, policy=policy(sea, found), guest=PROFILES["generic-sei"], vcpus=vcpus
        )
        self.desks = [Desk(vcpu, self.core.ways) for vcpu in self.vm.vcpus]
        self.guest = KvmGuest(self.vm, self.ram, self.core, self._take, heard=self._heard, ended=self._over)
        if start:
            self.start()

    def start(self) -> None:
        """Run the guest, and wait until every vCPU asks for a command.  Raises Failure."""
        self.guest.start()
        for vcpu, desk in enumerate(self.desks):
            if not desk.up.wait(SECONDS):
                raise Failure(f"vCPU {vcpu} does not come up; {self._where(vcpu)}")

    def boot(self) -> None:
        """Put code and tables into memory, and every vCPU at their begin."""
        self.ram.write(RAM, self.code)
        self.image.write(self.ram.write)
        for vcpu in self.vm.vcpus:
            vcpu.set(CORE["PC"], RAM)
            vcpu.set(CORE["PSTATE"], BOOTED)

    def symbol(self, index: int) -> int:
        """Address of at_load, at_store, at_user, sdei_entry."""
        return int.from_bytes(self.code[8 + 8 * index : 16 + 8 * index], "little")

    def source(self, way: str) -> PlacedSource:
        """The error source of a way."""
        return self.core.ways[way][0].placed

    # -- commands -----------------------------------------------------------------------

    def begin(self, number: Command, *arguments: int, vcpu: int = 0, skip: Skip = INSTRUCTION) -> None:
        """Give a vCPU a command, and wait until it has it.  ``skip``: what the handler of an exception adds to ELR."""
        desk = self.desks[vcpu]
        desk.give(number, arguments, skip)
        if not desk.begun.wait(SECONDS):
            raise Failure(f"vCPU {vcpu} takes no command; {self._where(vcpu)}; {'; '.join(self.ended) or 'it runs'}")

    def finish(self, vcpu: int = 0, seconds: float = SECONDS) -> Answer:
        """Wait for the command.  Raises Failure."""
        desk = self.desks[vcpu]
        if not desk.done.wait(seconds):
            raise Failure(
                f"vCPU {vcpu} does not finish its command; {self._where(vcpu)}; {'; '.join(self.ended) or 'it runs'}"
            )
        return desk.answer()

    def do(self, number: Command, *arguments: int, vcpu: int = 0, skip: Skip = INSTRUCTION) -> Answer:
        """A command, and what became of it.  Raises Failure."""
        self.begin(number, *arguments, vcpu=vcpu, skip=skip)
        return self.finish(vcpu)

    def _where(self, vcpu: int) -> str:
        """Of a vCPU that is lost."""
        thread = self.guest.vcpus[vcpu]
        return f"exit {thread.vcpu.reason}, out {thread.out}, asked {thread.asked}"

    def poll(self, vcpu: int = 0) -> tuple[int, ...]:
        """The guest looks at its polled source: the addresses it found."""
        source = self.source("polled")
        return self.do(Command.POLL, source.block, source.ack or 0, vcpu=vcpu).records

    def wait_for(self, holds: Callable[[list[Effect]], bool], what: str, seconds: float = SECONDS) -> list[Effect]:
        """Wait until the effects so far are such.  Raises Failure."""
        deadline = Deadline(seconds, what)
        with self._news:
            while not holds(self.seen):
                deadline.check()
                self._news.wait(min(1.0, deadline.left))
            return list(self.seen)

    def tell(self, event: TellSea | TellSerror) -> None:
        """Give the core what a person asks for, and wait until it was carried out.  Raises Failure."""

        def injected(seen: Sequence[Effect]) -> int:
            return sum(isinstance(e, InjectSea | InjectSerror) for e in seen)

        before = injected(self.seen)
        self.guest.receive(event)
        self.wait_for(lambda seen: injected(seen) > before, f"{type(event).__name__} is carried out")

    def settled(self, pages: int, seconds: float = SECONDS) -> list[Posted]:
        """Wait until that many pages were acknowledged in all; the blocks that were posted.  Raises Failure."""

        def holds(seen: list[Effect]) -> bool:
            return sum(len(e.pages) for e in seen if isinstance(e, Acked)) >= pages

        found = self.wait_for(holds, f"{pages} pages acknowledged", seconds)
        return [e for e in found if isinstance(e, Posted)]

    # -- losing memory ------------------------------------------------------------------

    def lose(self, gpa: int, size: int = 4096) -> None:
        """madvise(MADV_HWPOISON) of guest memory."""
        lose(self.ram.hva + gpa - self.ram.gpa, size)

    # -- the VMM's side -----------------------------------------------------------------

    def _take(self, thread: VcpuThread, reason: int) -> bool:
        vcpu = thread.vcpu
        if reason != ioctls.EXIT_MMIO:
            raise GuestError(f"vCPU {vcpu.index}: exit {reason}")
        desk, access = self.desks[vcpu.index], vcpu.mmio()
        if access.is_write:
            desk.written(access.phys_addr - MMIO, int.from_bytes(access.data, "little"))
        else:
            vcpu.answer_mmio(desk.read(access.phys_addr - MMIO).to_bytes(8, "little"))
        return True

    def _heard(self, effects: Sequence[Effect]) -> None:
        with self._news:
            self.seen += effects
            self._news.notify_all()

    def _over(self, thread: VcpuThread) -> None:
        self.ended.append(f"vCPU {thread.vcpu.index}: {thread.ended}")

    def close(self) -> None:
        """End the machine; it may be called twice."""
        self.guest.end()
        self.vm.close()
        self.ram.close()
