"""One boot of a virtual machine: its KVM objects, its core, what its guest finds in RAM, and its exits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from acpi.firmware import build
from vmm_ras.boot.layout import BOOT_PSTATE, Boot, lay_out
from vmm_ras.errors import GuestError, InputError
from vmm_ras.events import Event
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.holes import Holes
from vmm_ras.io.host import describe
from vmm_ras.io.kvm import implementations, moving
from vmm_ras.io.kvm.gic import GicV3
from vmm_ras.io.kvm.guest import KvmGuest
from vmm_ras.io.kvm.thread import VcpuThread
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.io.vmm import platform
from vmm_ras.io.vmm.configuration import Ending
from vmm_ras.kvm import ioctls
from vmm_ras.kvm.exits import EXIT_UNION, MmioExit
from vmm_ras.kvm.one_reg import CORE, SYSREGS
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier

if TYPE_CHECKING:
    from vmm_ras.io.vmm.machine import VirtualMachine

_CHUNK = 1 << 20
_ACCESS = MmioExit.reader("phys_addr", "len", "data", "is_write")
_ENDINGS = {
    ioctls.SYSTEM_EVENT_SHUTDOWN: "powered off",
    ioctls.SYSTEM_EVENT_RESET: "reset",
    ioctls.SYSTEM_EVENT_CRASH: "crashed",
}


class _Guest(KvmGuest):
    """The adapter, whose events are heard of too."""

    machine: VirtualMachine

    def receive(self, event: Event) -> None:
        with self.lock:
            self.machine.came(event)
            super().receive(event)


class Running:
    """One boot of ``machine``: all that a reset throws away.  Raises HostError, InputError."""

    def __init__(self, machine: VirtualMachine, *, load: bool = True) -> None:
        """``load``: put into memory what the guest boots from; else another one comes."""
        c, ram = machine.configuration, machine.ram
        self.machine = machine
        self.vm = Vm(machine._kvm)
        self.holes = Holes(ram, self.vm.cut)
        self._gic: GicV3 | None = None
        try:
            self.vm.add_memory(ram.slot)
            self.sdei = self.vm.forward_calls()
            self.relayed = self.vm.relay_aborts()
            if c.pool is not None:
                implementations.announce(self.vm)
            for index in range(c.vcpus):
                self.vm.add_vcpu(powered=index == 0)
            self._gic = GicV3(self.vm, platform.GICD, platform.GICR, platform.INTERRUPTS)
            self.boot = self._lay_out()
            if load:
                self._load()
                if c.hosts:
                    moving.conservative(self.vm, describe(machine._kvm, frozenset()), c.hosts)
            first = self.vm.vcpus[0]
            if c.pool is not None:
                implementations.show(first, c.pool)
            self.midr = first.get(SYSREGS["MIDR_EL1"])
            for name, value in (("X0", self.boot.device_tree_at), ("PC", self.boot.entry), ("PSTATE", BOOT_PSTATE)):
                first.set(CORE[name], value)
            core = Notifier(
                self.boot.image.sources, MemoryMap([ram.slot]), policy=c.policy, hook=c.hook, guest=c.profile,
                vcpus=c.vcpus, mpidrs=[vcpu.get(SYSREGS["MPIDR_EL1"]) for vcpu in self.vm.vcpus],
                page_shift=self.boot.page_shift, sdei_events=c.sdei_events,
            )  # fmt: skip
            core.pool = c.pool
            self.guest = _Guest(
                self.vm, ram, core, self._take, raise_line=self._raise_line, heard=machine.carried_out,
                ended=self._vcpu_ended,
            )  # fmt: skip
            self.guest.machine, self.guest.lock = machine, machine.lock
        except BaseException:
            self.close()
            raise

    @property
    def gic(self) -> GicV3:
        """The interrupt controller."""
        assert self._gic is not None
        return self._gic

    def _lay_out(self) -> Boot:
        """What the guest finds, and where."""
        c = self.machine.configuration
        description = c.describe(c.memory, c.vcpus, sdei=self.sdei)
        size = 0 if c.initrd is None else _size(c.initrd)
        return lay_out(build(description), self.machine.kernel, size, c.command_line, os.urandom(32))

    def _load(self) -> None:
        """Everything that the guest finds, into RAM."""
        c, ram, boot = self.machine.configuration, self.machine.ram, self.boot
        _copy(c.kernel, ram, boot.kernel_at, self.machine.kernel.size)
        if c.initrd is not None:
            _copy(c.initrd, ram, boot.initrd_at, _size(c.initrd))
        for _, gpa, data in boot.regions:
            ram.write(gpa, data)

    def _take(self, thread: VcpuThread, reason: int) -> bool:
        """An exit that is not the core's."""
        vcpu = thread.vcpu
        if reason == ioctls.EXIT_MMIO:
            gpa, size, data, is_write = _ACCESS(vcpu.run_page, EXIT_UNION)
            found = self.machine.bus.access(gpa, size, data if is_write else None)
            if not is_write:
                vcpu.answer_mmio(found)
            return True
        if reason == ioctls.EXIT_SYSTEM_EVENT:
            kind = vcpu.system_event().type
            self.machine.end(Ending(_ENDINGS.get(kind, "failed"), f"vCPU {vcpu.index}: system event {kind}"))
            return False
        raise GuestError(f"vCPU {vcpu.index}: KVM_RUN ended with exit reason {reason}")

    def _vcpu_ended(self, thread: VcpuThread) -> None:
        if not self.guest.ending:
            self.machine.end(Ending("failed", thread.ended))

    def _raise_line(self, kind: str, number: int) -> None:
        gsiv = number if kind == "gsiv" else platform.GPIO_GSIV
        for level in (True, False):
            self.vm.set_line(gsiv, level)

    def close(self) -> None:
        """Give the KVM objects back."""
        if self._gic is not None:
            self._gic.close()
        self.vm.close()
        self.holes.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _copy(path: Path, ram: GuestRam, gpa: int, room: int) -> None:
    """A file into RAM.  Raises InputError where it is longer than its place, or cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            while data := file.read(min(_CHUNK, room + 1)):
                room -= len(data)
                if room < 0:
                    raise InputError(f"{path}: longer than it says, or it grew")
                ram.write(gpa, data)
                gpa += len(data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
