"""A machine of KVM: memory slots, interrupt lines, which SMCCC calls come to user space (KVM API 4.2, 4.25, 4.35)."""

from __future__ import annotations

import os

from vmm_ras.io.closing import Closing
from vmm_ras.io.kvm.ioctl import KvmError, Value, call, fetch, put
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.kvm import events, ioctls
from vmm_ras.kvm.structs import (
    CreateDevice,
    DeviceAttr,
    EnableCap,
    IrqLevel,
    SmcccFilter,
    UserspaceMemoryRegion,
    VcpuInit,
)
from vmm_ras.memory import MemorySlot

SDEI_CALLS = (0xC400_0020, 0x20)
"""First function identifier and count of SDEI's calls (DEN 0054, table 5)."""
FIRST_SPI, LAST_SPI = 32, 1019


class Vm(Closing):
    """A machine.  Every method raises KvmError.  Closing it closes its vCPUs too; KVM drops it with the last file."""

    def __init__(self, kvm: Kvm) -> None:
        self.kvm = kvm
        self.fd = call(kvm.fd, ioctls.CREATE_VM)
        self.slots: list[MemorySlot] = []
        self.vcpus: list[Vcpu] = []

    def capability(self, number: int) -> int:
        """KVM_CHECK_EXTENSION of this machine: 0 where it has it not."""
        return call(self.fd, ioctls.CHECK_EXTENSION, number)

    def enable(self, capability: int) -> bool:
        """KVM_ENABLE_CAP; whether the host has it."""
        try:
            put(self.fd, ioctls.ENABLE_CAP, EnableCap(cap=capability))
        except KvmError:
            return False
        return True

    def add_memory(self, slot: MemorySlot, flags: int = 0) -> None:
        """Let guest memory at ``slot.gpa`` be what the process has at ``slot.hva``."""
        self._set_memory(len(self.slots), slot, flags)
        self.slots.append(slot)

    def _set_memory(self, number: int, slot: MemorySlot, flags: int = 0) -> None:
        put(self.fd, ioctls.SET_USER_MEMORY_REGION, UserspaceMemoryRegion(
            slot=number, flags=flags, guest_phys_addr=slot.gpa, memory_size=slot.size,
            userspace_addr=slot.hva))  # fmt: skip

    def cut(self, gpa: int, size: int) -> None:
        """Take a range out of the slot that holds it: an access there comes out of KVM_RUN as one to a device.

        An instruction that is fetched there, or a table walk, is an abort that KVM injects without a word.
        """
        self.enable(ioctls.CAP_ARM_NISV_TO_USER)
        number = next(i for i, s in enumerate(self.slots) if s.gpa <= gpa and gpa + size <= s.gpa + s.size)
        whole = self.slots[number]
        self._set_memory(number, MemorySlot(whole.hva, whole.gpa, 0))
        before, end = MemorySlot(whole.hva, whole.gpa, gpa - whole.gpa), gpa + size
        self.slots[number] = before
        if before.size:
            self._set_memory(number, before)
        if end < whole.gpa + whole.size:
            self.add_memory(MemorySlot(whole.hva + end - whole.gpa, end, whole.gpa + whole.size - end))

    def mend(self, slot: MemorySlot) -> None:
        """Let the guest have memory again that ``cut`` took; nothing is done where it has."""
        if not any(s.gpa <= slot.gpa < s.gpa + s.size for s in self.slots):
            self.add_memory(slot)

    def add_vcpu(self, *, powered: bool = True, features: int = 0) -> Vcpu:
        """One more vCPU, of the host's kind, with PSCI; one that is not ``powered`` waits for CPU_ON.

        ``features``: bits of further ones (KVM_ARM_VCPU_*).
        """
        index = len(self.vcpus)
        target = VcpuInit.decode(fetch(self.fd, ioctls.ARM_PREFERRED_TARGET, VcpuInit.SIZE)).target
        vcpu = Vcpu(
            call(self.fd, ioctls.CREATE_VCPU, index),
            self.kvm.run_size,
            index,
            target,
            powered=powered,
            features=features,
        )
        self.vcpus.append(vcpu)
        return vcpu

    def forward_calls(self, base: int = SDEI_CALLS[0], count: int = SDEI_CALLS[1]) -> bool:
        """Let SMCCC calls come to user space; whether the host can (from 6.4 on).  Before the first run only."""
        value = Value(
            SmcccFilter(base=base, nr_functions=count, action=ioctls.SMCCC_FILTER_FWD_TO_USER).encode()
        )  # fmt: skip
        try:
            put(self.fd, ioctls.SET_DEVICE_ATTR, DeviceAttr(
                group=ioctls.ARM_VM_SMCCC_CTRL, attr=ioctls.ARM_VM_SMCCC_FILTER, addr=value.address))  # fmt: skip
        except KvmError:
            return False
        return True

    def has_device(self, kind: int) -> bool:
        """Whether KVM_CREATE_DEVICE can make one of this kind."""
        wanted = CreateDevice(type=kind, flags=ioctls.CREATE_DEVICE_TEST)
        try:
            put(self.fd, ioctls.CREATE_DEVICE, wanted)
        except KvmError:
            return False
        return True

    def relay_aborts(self) -> bool:
        """Let SEAs that the host does not claim come to user space (KVM_EXIT_ARM_SEA); whether the host can."""
        return self.enable(events.CAP_ARM_SEA_TO_USER)

    def set_line(self, gsiv: int, level: bool) -> None:
        """Drive the line of a shared peripheral interrupt (GSIV 32 to 1019)."""
        irq = ioctls.ARM_IRQ_TYPE_SPI << ioctls.ARM_IRQ_TYPE_SHIFT | gsiv
        put(self.fd, ioctls.IRQ_LINE, IrqLevel(irq=irq, level=int(level)))

    def close(self) -> None:
        """Close the machine and its vCPUs; it may be called twice."""
        for vcpu in self.vcpus:
            vcpu.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
