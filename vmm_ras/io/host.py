"""What this host's KVM says of itself, as ``vmm_ras.compat.host.Description``: asked of a vCPU that never runs."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from vmm_ras.compat.host import Description
from vmm_ras.errors import HostError
from vmm_ras.io.kvm.ioctl import Value, call
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.kvm import events, ioctls
from vmm_ras.kvm.one_reg import sysreg

CAPABILITIES = range(1, 512)
FEATURES = {
    "pmu-v3": (1 << ioctls.ARM_VCPU_PMU_V3, (ioctls.CAP_ARM_PMU_V3,)),
    "sve": (1 << ioctls.ARM_VCPU_SVE, (ioctls.CAP_ARM_SVE,)),
    "ptrauth": (
        1 << ioctls.ARM_VCPU_PTRAUTH_ADDRESS | 1 << ioctls.ARM_VCPU_PTRAUTH_GENERIC,
        (ioctls.CAP_ARM_PTRAUTH_ADDRESS, ioctls.CAP_ARM_PTRAUTH_GENERIC),
    ),
}
"""Optional vCPU feature to its bits, and the capabilities that it takes.  PSCI 0.2 is always on."""
_MASK_RANGE = struct.Struct("<QI52x")
"""struct reg_mask_range: where the masks go, range 0 (feature ID registers), reserved."""
_MASK_OP1 = (0, 1, 3)
_MASKS = len(_MASK_OP1) * 8 * 8
_CPU = Path("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1")


def describe(kvm: Kvm, features: frozenset[str] | None = None) -> Description:
    """Ask; ``features``: those of the vCPU, else all that the host has.  Raises HostError."""
    vm = Vm(kvm)
    try:
        capabilities = {number: found for number in CAPABILITIES if (found := _capability(vm, number))}
        vcpu, chosen = add_vcpu(vm, features)
        values = {reg: vcpu.get(reg) for reg in vcpu.registers()}
        writable = _writable(vm) if ioctls.CAP_ARM_SUPPORTED_REG_MASK_RANGES in capabilities else None
    finally:
        vm.close()
    return Description(
        kernel=os.uname().release, cpu=_cpu_name(), features=["psci-0.2", *chosen], capabilities=capabilities,
        registers=values, writable=writable,
    )  # fmt: skip


def add_vcpu(
    vm: Vm, features: frozenset[str] | None = None, before: Callable[[Vcpu], object] = lambda vcpu: None
) -> tuple[Vcpu, list[str]]:
    """A vCPU with these features, or with all that the host has; and their names.  Raises HostError.

    ``before``: what is to be done before KVM_ARM_VCPU_FINALIZE: SVE's vector lengths can be set until then.
    """
    offered = {name: bits for name, (bits, needs) in FEATURES.items() if all(_capability(vm, n) for n in needs)}
    chosen = [name for name in FEATURES if name in (offered if features is None else features)]
    missing = [name for name in chosen if name not in offered]
    if missing:
        raise HostError(f"this host's KVM has no {', '.join(missing)}")
    vcpu = vm.add_vcpu(features=sum(offered[name] for name in chosen))
    before(vcpu)
    if "sve" in chosen:
        vcpu.finalize(ioctls.ARM_VCPU_SVE)
    return vcpu, chosen


def own_implementation(vm: Vm) -> bool:
    """Let MIDR_EL1, REVIDR_EL1 and AIDR_EL1 be set; before the first vCPU.  Whether the host can."""
    return vm.enable(events.CAP_ARM_WRITABLE_IMP_ID_REGS)


def _capability(vm: Vm, number: int) -> int:
    try:
        return max(0, vm.capability(number))
    except HostError:
        return 0


def _writable(vm: Vm) -> dict[int, int]:
    room = Value(8 * _MASKS)
    call(vm.fd, ioctls.ARM_GET_REG_WRITABLE_MASKS, _MASK_RANGE.pack(room.address, 0))
    found = struct.unpack(f"<{_MASKS}Q", room.data)
    return {
        sysreg(3, _MASK_OP1[index // 64], 0, index // 8 % 8, index % 8): mask
        for index, mask in enumerate(found)
        if mask
    }


def _cpu_name() -> str:
    try:
        return f"MIDR_EL1 {_CPU.read_text().strip()}"
    except OSError:
        return ""
