"""Structures of ``asm/kvm.h`` and ``linux/kvm.h``, arm64: vCPU events, and the exits that tell of lost memory."""

from __future__ import annotations

from typing import ClassVar

from cper.wire import U8, U64, Reserved, Struct
from vmm_ras import arm64
from vmm_ras.events import GuestAbort, MemoryFault


class VcpuEvents(Struct, size=64):
    """struct kvm_vcpu_events, of KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS: the only carrier of VSESR_EL2."""

    serror_pending: U8 = 0
    """Get: an SError is pending.  Set: make one pending; 0 takes nothing back."""
    serror_has_esr: U8 = 0
    """Get: the host has FEAT_RAS.  Set: ``serror_esr`` counts."""
    ext_dabt_pending: U8 = 0
    """Set only: the access of the last exit takes a synchronous external data abort."""
    pad: ClassVar = Reserved(5)
    serror_esr: U64 = 0
    """ISS of the SError, with IDS: bits 24:0."""
    reserved: ClassVar = Reserved(48)

    def with_serror(self, iss: int) -> VcpuEvents:
        """What to set so that an SError with this syndrome becomes pending; ``self`` is what KVM_GET_VCPU_EVENTS gave.

        A second SET replaces the syndrome that waits, so the worse of both is chosen here (DDI 0587 2.5.3).  Where the
        host has no FEAT_RAS the syndrome cannot be set.
        """
        if not self.serror_has_esr:
            return VcpuEvents(serror_pending=1)
        waiting = self.serror_esr if self.serror_pending else None
        return VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=arm64.merge_serror(waiting, iss))

    @property
    def serror(self) -> int | None:
        """Syndrome of the SError that is pending, for ``VcpuState.serror``; IDS alone where the host has none."""
        if not self.serror_pending:
            return None
        return self.serror_esr & arm64.ESR_ISS if self.serror_has_esr else arm64.ISS_IDS


class ArmSea(Struct, size=32):
    """``arm_sea`` of struct kvm_run after KVM_EXIT_ARM_SEA: the guest consumed poison that the host does not claim."""

    flags: U64 = 0
    esr: U64 = 0
    """ESR_EL2: EC, IL, FnV, EA, CM, WnR, xFSC, and SET where the guest has FEAT_RAS."""
    gva: U64 = 0
    gpa: U64 = 0

    def event(self, vcpu: int, time: float | None = None) -> GuestAbort:
        """What the core is told: the address is known unless FnV says otherwise, the page if the flag says so."""
        gva = None if self.esr & arm64.ISS_FNV else self.gva
        return GuestAbort(vcpu, self.esr, gva, self.gpa if self.flags & ARM_SEA_GPA_VALID else None, time)


class MemoryFaultExit(Struct, size=24):
    """``memory_fault`` of struct kvm_run after KVM_EXIT_MEMORY_FAULT."""

    flags: U64 = 0
    gpa: U64 = 0
    size: U64 = 0

    def event(self, time: float | None = None) -> MemoryFault:
        """What the core is told."""
        return MemoryFault(self.gpa, self.size, time)


ARM_SEA_GPA_VALID = 1
"""KVM_EXIT_ARM_SEA_FLAG_GPA_VALID."""
EXIT_MEMORY_FAULT = 39
EXIT_ARM_SEA = 41
CAP_VCPU_EVENTS = 41
CAP_ARM_INJECT_SERROR_ESR = 158
CAP_ARM_INJECT_EXT_DABT = 178
CAP_ARM_WRITABLE_IMP_ID_REGS = 239
CAP_ARM_SEA_TO_USER = 245
GET_VCPU_EVENTS = 0x8040AE9F
SET_VCPU_EVENTS = 0x4040AEA0
