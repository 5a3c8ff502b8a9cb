"""A model vCPU as KVM on arm64 shows it to a VMM: KVM_GET/SET_VCPU_EVENTS, ONE_REG, KVM_RUN, KVM_ARM_VCPU_INIT.

In what host kernels differ comes from ``vmm_ras.kvm.hosts``.
"""

from __future__ import annotations

import errno

from vmm_ras import arm64
from vmm_ras.errors import HostError, InputError
from vmm_ras.guests.nested import NestedVcpu
from vmm_ras.guests.vcpu import Vcpu
from vmm_ras.kvm.events import VcpuEvents
from vmm_ras.kvm.hosts import HostProfile
from vmm_ras.kvm.one_reg import CORE, SYSREGS


class Refused(HostError):
    """The ioctl failed with ``errno``."""

    def __init__(self, ioctl: str, code: int) -> None:
        super().__init__(f"{ioctl}: {errno.errorcode[code]}")
        self.errno = code


_ATTRIBUTES = {
    CORE["SP_EL0"]: "sp_el0",
    CORE["PC"]: "pc",
    CORE["PSTATE"]: "pstate",
    CORE["SP_EL1"]: "sp_el1",
    CORE["ELR_EL1"]: "elr",
    CORE["SPSR_EL1"]: "spsr",
    SYSREGS["SCTLR_EL1"]: "sctlr",
    SYSREGS["SCTLR2_EL1"]: "sctlr2",
    SYSREGS["ESR_EL1"]: "esr",
    SYSREGS["FAR_EL1"]: "far",
    SYSREGS["VBAR_EL1"]: "vbar",
    SYSREGS["DISR_EL1"]: "disr",
}
_EL2 = {
    SYSREGS["HCR_EL2"]: "hcr",
    SYSREGS["HCRX_EL2"]: "hcrx",
    SYSREGS["VBAR_EL2"]: "vbar",
    SYSREGS["SCTLR_EL2"]: "sctlr",
    SYSREGS["SCTLR2_EL2"]: "sctlr2",
}
"""Registers of a vCPU with EL2, as its ``set_el2`` names them."""
_SYNDROMES_EL2 = {SYSREGS[f"{name.upper()}_EL2"]: f"{name}_el2" for name in ("elr", "esr", "far", "spsr")}
SCTLR_RESET = 0x00C5_0078
"""SCTLR_EL1 after KVM_ARM_VCPU_INIT (Linux, arch/arm64/kvm/sys_regs.c)."""
_X = {CORE[f"X{n}"]: n for n in range(31)}
_ID_REGISTERS = [SYSREGS[f"ID_AA64{name}_EL1"] for name in ("PFR0", "PFR1", "MMFR1", "MMFR2")]


class KvmVcpu:
    """A vCPU file descriptor of a model host.

    ``hfar`` is what KVM has of FAR_EL2: the guest virtual address of the access that made the last exit.
    """

    def __init__(self, vcpu: Vcpu, host: HostProfile, *, host_ras: bool = True) -> None:
        if arm64.EL2H in vcpu.MODES and not host.el2:
            raise InputError(f"{host.name}: no vCPU has EL2 there")
        self.vcpu, self.host, self.host_ras = vcpu, host, host_ras
        without = set() if vcpu.features.double_fault2 else {SYSREGS["SCTLR2_EL1"], SYSREGS["SCTLR2_EL2"]}
        el2 = (*_EL2, *_SYNDROMES_EL2) if isinstance(vcpu, NestedVcpu) else ()
        self.reg_list = frozenset((*_X, *_ATTRIBUTES, *el2, *_ID_REGISTERS)) - without
        """KVM_GET_REG_LIST: those that the model has."""
        self.hfar = 0
        self._abort = False
        """An abort was accepted; its exception is entered at the next run."""

    # -- events ------------------------------------------------------------------------

    def get_events(self) -> bytes:
        """KVM_GET_VCPU_EVENTS.  An abort is never shown as pending."""
        vsesr = self.vcpu.vsesr
        return VcpuEvents(
            serror_pending=int(vsesr is not None),
            serror_has_esr=int(self.host_ras),
            serror_esr=vsesr or 0 if self.host_ras else 0,
        ).encode()

    def set_events(self, data: bytes) -> None:
        """KVM_SET_VCPU_EVENTS.  The abort comes before the SError, which it masks.

        Raises Refused with EINVAL for reserved bytes, a syndrome that the host cannot set, bits of one beyond 24:0.
        """
        events = VcpuEvents.decode(data)
        if any(data[3:8]) or any(data[16:]):
            raise Refused("KVM_SET_VCPU_EVENTS", errno.EINVAL)
        has_esr = bool(events.serror_pending and events.serror_has_esr)
        bad = has_esr and (not self.host_ras or events.serror_esr & ~arm64.ESR_ISS)
        if events.ext_dabt_pending and (not bad or self.host.sea_despite_refusal):
            self._external_abort()
        if bad:
            raise Refused("KVM_SET_VCPU_EVENTS", errno.EINVAL)
        if events.serror_pending:
            self._serror(events.serror_esr if has_esr else arm64.ISS_IDS)
        elif self.host.zero_clears_serror:
            self.vcpu.vsesr = None

    def _external_abort(self) -> None:
        vcpu = self.vcpu
        esr = arm64.sea_esr(vcpu.el, self.hfar)
        if self.host.esr_sign_extended:
            esr |= 0xFFFF_FFFF << 32
        if self.host.sea_at_set:
            vcpu.take_sea(esr, self.hfar)
        else:
            vcpu.esr, vcpu.far, self._abort = esr, self.hfar, True

    def _serror(self, iss: int) -> None:
        vcpu = self.vcpu
        if vcpu.vsesr is None or self.host.second_serror_replaces:
            vcpu.vsesr = iss if self.host_ras else 0
        if self.host.serror_at_set:
            vcpu.poll_serror()

    # -- running -----------------------------------------------------------------------

    def run(self) -> None:
        """KVM_RUN, as far as entering the guest: what was injected is taken, an abort first.

        The ESR_EL1 of an abort is that which stands there by now: user space may have chosen another.
        """
        vcpu = self.vcpu
        if self._abort:
            self._abort = False
            vcpu.take_sea(vcpu.esr, None)
        vcpu.poll_serror()

    def init(self) -> None:
        """KVM_ARM_VCPU_INIT: core and system registers are reset."""
        vcpu = self.vcpu
        self._abort = False
        for name in _ATTRIBUTES.values():
            setattr(vcpu, name, 0)
        vcpu.x[:] = [0] * 31
        vcpu.pstate = arm64.PSTATE_DAIF | arm64.EL1H
        vcpu.sctlr = SCTLR_RESET
        if isinstance(vcpu, NestedVcpu):
            vcpu.set_el2(**dict.fromkeys(_EL2.values(), 0), running=False)
            for name in _SYNDROMES_EL2.values():
                setattr(vcpu, name, 0)
        if self.host.init_clears_serror:
            vcpu.vsesr = None

    # -- registers ---------------------------------------------------------------------

    def get_one_reg(self, reg: int) -> int:
        """KVM_GET_ONE_REG.  Raises Refused with ENOENT where there is no such register."""
        if reg not in self.reg_list:
            raise Refused("KVM_GET_ONE_REG", errno.ENOENT)
        if reg in _X:
            return self.vcpu.x[_X[reg]]
        if reg in _ID_REGISTERS:
            return self.vcpu.features.id_registers()[_ID_REGISTERS.index(reg)]
        if reg in _EL2:
            name, state = _EL2[reg], self.vcpu.take()
            return int(state[name] if name.startswith("hcr") else state[f"{name}_el2"])
        value: int = getattr(self.vcpu, _ATTRIBUTES.get(reg) or _SYNDROMES_EL2[reg])
        return value

    def set_one_reg(self, reg: int, value: int) -> None:
        """KVM_SET_ONE_REG.  Raises Refused: ENOENT as for reading, EINVAL for a mode or an ID that cannot be."""
        if reg not in self.reg_list:
            raise Refused("KVM_SET_ONE_REG", errno.ENOENT)
        if reg in _X:
            self.vcpu.x[_X[reg]] = value
        elif reg in _ID_REGISTERS:
            if value != self.get_one_reg(reg):
                raise Refused("KVM_SET_ONE_REG", errno.EINVAL)
        elif reg == CORE["PSTATE"] and value & arm64.PSTATE_M not in self.vcpu.MODES:
            raise Refused("KVM_SET_ONE_REG", errno.EINVAL)
        elif reg in _EL2 and isinstance(self.vcpu, NestedVcpu):
            self.vcpu.set_el2(**{_EL2[reg]: value}, running=False)
        else:
            setattr(self.vcpu, _ATTRIBUTES.get(reg) or _SYNDROMES_EL2[reg], value)
