"""A pool of CPUs on KVM: what is to be set so that the guest is shown one of them, and asks the core for all.

KVM, Documentation/virt/kvm/arm/fw-pseudo-registers.rst and api.rst (KVM_CAP_ARM_WRITABLE_IMP_ID_REGS); from 6.15 on.
"""

from __future__ import annotations

from vmm_ras import errata
from vmm_ras.compat.registers import IMPLEMENTATION, VENDOR_HYP_BITMAP_2, name
from vmm_ras.errata import Pool
from vmm_ras.errors import HostError
from vmm_ras.io.kvm.ioctl import KvmError
from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.kvm.events import CAP_ARM_WRITABLE_IMP_ID_REGS


def announce(vm: Vm) -> None:
    """Before the first vCPU: its identity can be set, and the guest's two calls come here.  Raises HostError."""
    if not vm.enable(CAP_ARM_WRITABLE_IMP_ID_REGS):
        raise HostError("this host shows its guests no CPU but its own (KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, Linux 6.15)")
    if not vm.forward_calls(*errata.CALLS):
        raise HostError("this host cannot forward the calls by which a guest asks for its pool of CPUs")


def show(vcpu: Vcpu, pool: Pool) -> None:
    """Of one vCPU, before any runs: all of them are the CPU that was chosen.  Raises HostError."""
    wanted = dict(zip(IMPLEMENTATION, pool.chosen, strict=True)) | {VENDOR_HYP_BITMAP_2: errata.VENDOR_HYP_BITMAP_2}
    for reg, value in wanted.items():
        try:
            vcpu.set(reg, value)
        except KvmError as error:
            raise HostError(f"{name(reg)} {value:#x}: {error}") from None
