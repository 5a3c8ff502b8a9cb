"""What of a KVM vCPU telling errors depends on, taken and put back by ONE_REG and KVM_GET/SET_VCPU_EVENTS.

This is what a VMM gives ``vmm_ras.snapshot`` for each vCPU where it does not move all registers by itself.  The pending
SError is asked for: the host kernel may have injected one that the core knows nothing of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

from vmm_ras import arm64
from vmm_ras.errors import SnapshotError
from vmm_ras.kvm.events import VcpuEvents
from vmm_ras.kvm.one_reg import CORE, SYSREGS


class KvmVcpu(Protocol):
    """A vCPU of a host."""

    def get(self, reg: int) -> int:
        """KVM_GET_ONE_REG."""

    def set(self, reg: int, value: int) -> None:
        """KVM_SET_ONE_REG."""

    def events(self) -> VcpuEvents:
        """KVM_GET_VCPU_EVENTS."""

    def set_events(self, wanted: VcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS."""


REGISTERS: Final[dict[str, int]] = {
    **{f"x{n}": CORE[f"X{n}"] for n in range(31)},
    **{name.lower(): CORE[name] for name in ("SP_EL0", "SP_EL1", "PC", "PSTATE")},
    "elr": CORE["ELR_EL1"],
    "spsr": CORE["SPSR_EL1"],
    **{name.lower(): SYSREGS[f"{name}_EL1"] for name in ("SCTLR", "SCTLR2", "ESR", "FAR", "VBAR", "DISR")},
}
"""Exception state by the names of the snapshot's part ``vcpus``."""


def take(vcpu: KvmVcpu, registers: Collection[int]) -> dict[str, int | None]:
    """The exception state of a vCPU and the SError that is pending for it; ``registers``: its KVM_GET_REG_LIST."""
    values: dict[str, int | None] = {name: vcpu.get(reg) for name, reg in REGISTERS.items() if reg in registers}
    return values | {"serror": vcpu.events().serror}


def put(vcpu: KvmVcpu, registers: Collection[int], value: Mapping[str, Any]) -> list[str]:
    """Give a vCPU what ``take`` gave; what the host cannot take, in words.

    The SError comes last, so that PSTATE.A, which masks it, is set before.  Raises SnapshotError, and changes nothing,
    for values that no vCPU has, and HostError where the host refuses one.
    """
    unknown = set(value) - {*REGISTERS, "serror"}
    if unknown or "pstate" not in value:
        raise SnapshotError(f"vCPU: {min(unknown) if unknown else 'no pstate'}: expected its exception state")
    for name, number in value.items():
        limit = arm64.ESR_ISS if name == "serror" else arm64.U64
        if not (type(number) is int and 0 <= number <= limit) and not (name == "serror" and number is None):
            raise SnapshotError(f"vCPU: {name}: {str(number)[:40]} is no value of it")
    if value["pstate"] & arm64.PSTATE_M not in arm64.EL_MODES:
        raise SnapshotError(f"vCPU: pstate {value['pstate']:#x}: neither EL0 nor EL1")
    left = []
    for name in REGISTERS.keys() & value.keys():
        if REGISTERS[name] in registers:
            vcpu.set(REGISTERS[name], value[name])
        else:
            left.append(f"{name} is no register of this host")
    serror, there = value.get("serror"), vcpu.events()
    if serror is None:
        return [*left, "an SError is pending there, and KVM takes none back"] if there.serror_pending else left
    if there.serror_has_esr:
        vcpu.set_events(VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=serror))
    else:
        vcpu.set_events(VcpuEvents(serror_pending=1))
        if serror != arm64.ISS_IDS:
            left.append(f"the SError's syndrome {serror:#x}: this host has no FEAT_RAS")
    return left
