"""Letting a vCPU of KVM take an exception, and looking whether it does (KVM API 4.31, 4.32; DDI 0487 D1.3.1).

A vCPU is settled first: registers over an access in flight are lost, for KVM moves PC when it completes it.
"""

from __future__ import annotations

from vmm_ras import arm64
from vmm_ras.effects import SetRegisters
from vmm_ras.errors import GuestError, InputError
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.kvm.events import VcpuEvents
from vmm_ras.kvm.one_reg import CORE, SYSREGS

PC, PSTATE, ELR, SPSR = CORE["PC"], CORE["PSTATE"], CORE["ELR_EL1"], CORE["SPSR_EL1"]
ESR, FAR, VBAR, SCTLR = SYSREGS["ESR_EL1"], SYSREGS["FAR_EL1"], SYSREGS["VBAR_EL1"], SYSREGS["SCTLR_EL1"]
SCTLR2 = SYSREGS["SCTLR2_EL1"]
_IDS = tuple(SYSREGS[f"ID_AA64{name}_EL1"] for name in ("PFR0", "PFR1", "MMFR1", "MMFR2"))
_X = tuple(CORE[f"X{n}"] for n in range(31))
_VECTORS = 2048
_STORE = 0xF900_0000
"""str x0, [x0]"""
_TRIES = 16
_NOWHERE = 8
"""An address at which a machine has no memory: an access comes out of KVM_RUN."""
_MMU = 1
"""SCTLR_EL1.M"""
_FETCH = (arm64.EC_DABT_SAME - arm64.EC_IABT_SAME) << arm64.ESR_EC_SHIFT


def take_sea(vcpu: Vcpu, esr: int, far: int | None, at_access: bool) -> None:
    """Let the vCPU take a synchronous external abort.  Raises GuestError where it does not, and KvmError.

    ``at_access``: it stands at the access that the host just refused it.  Then KVM makes the exception, and knows FAR;
    of its ESR only what the caller wants otherwise is replaced.  Else all registers are set here.
    """
    vcpu.settle_access()
    pc, pstate, features = vcpu.get(PC), vcpu.get(PSTATE), features_of(vcpu)
    ease = features.double_fault2 and vcpu.get(SCTLR2) & arm64.SCTLR2_EASE
    entry = _vector(vcpu, pstate, arm64.VECTOR_SERROR if ease else arm64.VECTOR_SYNCHRONOUS)
    if at_access and far is None:
        vcpu.set_events(VcpuEvents(ext_dabt_pending=1))
        vcpu.settle()  # KVM before 7.2 enters the exception with the next KVM_RUN
        esr &= ~arm64.ISS_FNV
        if vcpu.get(FAR) == pc:  # the instruction itself could not be fetched
            esr -= _FETCH
        if vcpu.get(ESR) != esr:
            vcpu.set(ESR, esr)
    else:
        for reg, value in ((ESR, esr), (FAR, far), (ELR, pc), (SPSR, pstate), (PC, entry)):
            if value is not None:
                vcpu.set(reg, value)
        vcpu.set(PSTATE, arm64.entry_pstate(pstate, vcpu.get(SCTLR), features))
    found = vcpu.get(PC), vcpu.get(ELR), vcpu.get(SPSR), vcpu.get(ESR)
    if found != (entry, pc, pstate, esr):
        raise GuestError(f"vCPU {vcpu.index} did not take the abort: PC {found[0]:#x}, expected {entry:#x}")


def pend_serror(vcpu: Vcpu, vsesr: int) -> bool:
    """Make a virtual SError pending; False, and nothing is done, while another one is: a second SET replaces the first.

    Raises GuestError where it is neither pending nor taken afterwards, and KvmError.
    """
    vcpu.settle_access()
    before = vcpu.events()
    if before.serror_pending:
        return False
    pstate = vcpu.get(PSTATE)
    vcpu.set_events(before.with_serror(vsesr))
    vcpu.settle()
    if not vcpu.events().serror_pending:  # KVM from 7.2 on enters one that PSTATE.A does not mask at once
        entry = _vector(vcpu, pstate, arm64.VECTOR_SERROR)
        if vcpu.get(PC) != entry or vcpu.get(ESR) >> arm64.ESR_EC_SHIFT != arm64.EC_SERROR:
            raise GuestError(f"vCPU {vcpu.index}: the SError is neither pending nor taken")
    return True


def drain_serror(vcpu: Vcpu, ram: GuestRam, scratch: int) -> None:
    """After a reset of the vCPU (``Vcpu.init``): let it take an SError that the reset has left pending, and reset it.

    ``scratch``: 2 KiB aligned guest RAM that may be overwritten.  Raises GuestError where it stays, and KvmError.
    """
    if vcpu.events().serror is None:
        return
    ram.write(scratch, _STORE.to_bytes(4, "little") * (_VECTORS // 4))
    for reg, value in ((VBAR, scratch), (PC, scratch), (PSTATE, arm64.EL1H | arm64.PSTATE_DAIF & ~arm64.PSTATE_A),
                       (_X[0], _NOWHERE)):  # fmt: skip
        vcpu.set(reg, value)
    for _ in range(_TRIES):
        if vcpu.events().serror is None:
            break
        vcpu.run()
        vcpu.settle()
    vcpu.init()
    if vcpu.events().serror is not None:
        raise GuestError(f"vCPU {vcpu.index}: an SError stays pending over the reset")


def set_registers(vcpu: Vcpu, wanted: SetRegisters) -> None:
    """What an SDEI dispatch or completion leaves.  Raises KvmError."""
    vcpu.settle_access()
    for reg, value in zip(_X, wanted.x, strict=False):
        vcpu.set(reg, value)
    for place, new in ((ELR, wanted.elr), (SPSR, wanted.spsr), (PSTATE, wanted.pstate), (PC, wanted.pc)):
        if new is not None:
            vcpu.set(place, new)


def reply(vcpu: Vcpu, x0: int) -> None:
    """X0 of a vCPU whose call came to user space; PC is behind the call already.  Raises KvmError."""
    vcpu.set(_X[0], x0 & arm64.U64)


def _vector(vcpu: Vcpu, pstate: int, kind: int) -> int:
    base = vcpu.get(VBAR)
    if not base and not vcpu.get(SCTLR) & _MMU:
        raise GuestError(f"vCPU {vcpu.index} has no vectors yet: VBAR_EL1 is 0, and its MMU is off")
    try:
        return base + arm64.vector_block(pstate) + kind & arm64.U64
    except InputError as error:
        raise GuestError(f"vCPU {vcpu.index}: {error}") from None


def features_of(vcpu: Vcpu) -> arm64.Features:
    """What its ID registers say that it implements.  Raises KvmError."""
    return arm64.Features.of_id_registers(*(vcpu.get(reg) for reg in _IDS))
