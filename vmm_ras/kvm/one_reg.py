"""Ids of KVM_GET_ONE_REG and KVM_SET_ONE_REG on arm64: how one is composed, and those that telling errors needs.

An id is architecture, size, kind ("coprocessor") and place: of a core register its offset in struct kvm_regs, in
words; of a system register op0, op1, CRn, CRm, op2 as in MRS.
"""

from __future__ import annotations

from typing import Final

from vmm_ras.errors import InputError

REG_ARM64: Final = 0x6000_0000_0000_0000
REG_ARCH_MASK: Final = 0xFF00_0000_0000_0000
REG_SIZE_SHIFT: Final = 52
REG_SIZE_MASK: Final = 0x00F0_0000_0000_0000
REG_COPROC_SHIFT: Final = 16
REG_COPROC_MASK: Final = 0x0FFF_0000
REG_CORE: Final = 0x0010 << REG_COPROC_SHIFT
REG_SYSREG: Final = 0x0013 << REG_COPROC_SHIFT
OP0_SHIFT: Final = 14
OP1_SHIFT: Final = 11
CRN_SHIFT: Final = 7
CRM_SHIFT: Final = 3


def _id(kind: int, place: int, size: int) -> int:
    return REG_ARM64 | size.bit_length() - 1 << REG_SIZE_SHIFT | kind | place


def sysreg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """Id of a system register.  Raises InputError for operands that have no encoding."""
    for value, bits in ((op0, 2), (op1, 3), (crn, 4), (crm, 4), (op2, 3)):
        if value >> bits:
            raise InputError(f"system register {op0},{op1},{crn},{crm},{op2}: operands have 2, 3, 4, 4 and 3 bits")
    return _id(REG_SYSREG, op0 << OP0_SHIFT | op1 << OP1_SHIFT | crn << CRN_SHIFT | crm << CRM_SHIFT | op2, 8)


def core(offset: int, size: int = 8) -> int:
    """Id of the core register at a byte offset of struct kvm_regs.  Raises InputError where none can be."""
    if size not in (4, 8, 16) or offset % 4 or not 0 <= offset < 864:
        raise InputError(f"core register at {offset}, {size} bytes: expected a word of struct kvm_regs")
    return _id(REG_CORE, offset // 4, size)


def size_of(reg: int) -> int:
    """Bytes of the register with this id."""
    return 1 << ((reg & REG_SIZE_MASK) >> REG_SIZE_SHIFT)


CORE: Final[dict[str, int]] = {
    **{f"X{n}": core(8 * n) for n in range(31)},
    "SP_EL0": core(248),
    "PC": core(256),
    "PSTATE": core(264),
    "SP_EL1": core(272),
    "ELR_EL1": core(280),
    "SPSR_EL1": core(288),
}
"""The core registers, by name."""
SYSREGS: Final[dict[str, int]] = {
    "MIDR_EL1": sysreg(3, 0, 0, 0, 0),
    "MPIDR_EL1": sysreg(3, 0, 0, 0, 5),
    "REVIDR_EL1": sysreg(3, 0, 0, 0, 6),
    "AIDR_EL1": sysreg(3, 1, 0, 0, 7),
    "ID_AA64PFR0_EL1": sysreg(3, 0, 0, 4, 0),
    "ID_AA64PFR1_EL1": sysreg(3, 0, 0, 4, 1),
    "ID_AA64MMFR1_EL1": sysreg(3, 0, 0, 7, 1),
    "ID_AA64MMFR2_EL1": sysreg(3, 0, 0, 7, 2),
    "SCTLR_EL1": sysreg(3, 0, 1, 0, 0),
    "SCTLR2_EL1": sysreg(3, 0, 1, 0, 3),
    "ESR_EL1": sysreg(3, 0, 5, 2, 0),
    "ERRIDR_EL1": sysreg(3, 0, 5, 3, 0),
    "FAR_EL1": sysreg(3, 0, 6, 0, 0),
    "VBAR_EL1": sysreg(3, 0, 12, 0, 0),
    "DISR_EL1": sysreg(3, 0, 12, 1, 1),
    "SCTLR_EL2": sysreg(3, 4, 1, 0, 0),
    "SCTLR2_EL2": sysreg(3, 4, 1, 0, 3),
    "HCR_EL2": sysreg(3, 4, 1, 1, 0),
    "HCRX_EL2": sysreg(3, 4, 1, 2, 2),
    "SPSR_EL2": sysreg(3, 4, 4, 0, 0),
    "ELR_EL2": sysreg(3, 4, 4, 0, 1),
    "ESR_EL2": sysreg(3, 4, 5, 2, 0),
    "FAR_EL2": sysreg(3, 4, 6, 0, 0),
    "VBAR_EL2": sysreg(3, 4, 12, 0, 0),
}
"""The system registers that a VMM reads or writes when it tells an error, or carries an error to another host.

VSESR_EL2 is none of them: ``VcpuEvents`` carries it.
"""
_NAMES: Final = {reg: name for table in (CORE, SYSREGS) for name, reg in table.items()}


def describe(reg: int) -> str:
    """An id for people: the register's name, or how the id is composed."""
    if reg in _NAMES:
        return _NAMES[reg]
    if reg & REG_ARCH_MASK != REG_ARM64:
        return f"{reg:#x} (not arm64)"
    kind, place = reg & REG_COPROC_MASK, reg & 0xFFFF
    if kind == REG_SYSREG:
        op0, op1, crn = place >> OP0_SHIFT, place >> OP1_SHIFT & 7, place >> CRN_SHIFT & 15
        return f"S{op0}_{op1}_C{crn}_C{place >> CRM_SHIFT & 15}_{place & 7}"
    if kind == REG_CORE:
        return f"core register at {4 * place}, {size_of(reg)} bytes"
    return f"{reg:#x} (kind {kind >> REG_COPROC_SHIFT:#x})"
