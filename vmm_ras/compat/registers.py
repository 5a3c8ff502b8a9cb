"""Registers by what they are for: identity, caches, firmware; and those of a feature (KVM API, 4.68)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from vmm_ras.compat.fields import IDS, NAMES, field
from vmm_ras.kvm import one_reg
from vmm_ras.kvm.one_reg import REG_ARCH_MASK, REG_ARM64, REG_COPROC_MASK, REG_COPROC_SHIFT, REG_SYSREG, sysreg

RESET_UNKNOWN: Final = 0x1DE7_EC7E_DBAD_C0DE
"""What Linux resets registers to whose reset value the architecture does not say."""
MIDR: Final = sysreg(3, 0, 0, 0, 0)
REVIDR: Final = sysreg(3, 0, 0, 0, 6)
AIDR: Final = sysreg(3, 1, 0, 0, 7)
IMPLEMENTATION: Final = {MIDR: "MIDR_EL1", REVIDR: "REVIDR_EL1", AIDR: "AIDR_EL1"}
CLIDR: Final = sysreg(3, 1, 0, 0, 1)
OSLSR: Final = sysreg(2, 0, 1, 1, 4)
CTR: Final = IDS["CTR_EL0"]
PFR0: Final = IDS["ID_AA64PFR0_EL1"]
PFR1: Final = IDS["ID_AA64PFR1_EL1"]
ZFR0: Final = IDS["ID_AA64ZFR0_EL1"]

CORE_KIND, DEMUX, FW, SVE, FW_BITMAP = 0x10, 0x11, 0x14, 0x15, 0x16
"""Kinds of registers beside system registers."""
_FW: Final = REG_ARM64 | 3 << one_reg.REG_SIZE_SHIFT | FW << REG_COPROC_SHIFT
_BITMAP: Final = REG_ARM64 | 3 << one_reg.REG_SIZE_SHIFT | FW_BITMAP << REG_COPROC_SHIFT
PSCI_VERSION: Final = _FW
WORKAROUND_1, WORKAROUND_2, WORKAROUND_3 = _FW | 1, _FW | 2, _FW | 3
STD_BITMAP, STD_HYP_BITMAP, VENDOR_HYP_BITMAP, VENDOR_HYP_BITMAP_2 = (_BITMAP | n for n in range(4))
FIRMWARE: Final = {
    PSCI_VERSION: "PSCI_VERSION", WORKAROUND_1: "SMCCC_ARCH_WORKAROUND_1", WORKAROUND_2: "SMCCC_ARCH_WORKAROUND_2",
    WORKAROUND_3: "SMCCC_ARCH_WORKAROUND_3", STD_BITMAP: "STD_BMAP", STD_HYP_BITMAP: "STD_HYP_BMAP",
    VENDOR_HYP_BITMAP: "VENDOR_HYP_BMAP", VENDOR_HYP_BITMAP_2: "VENDOR_HYP_BMAP_2",
}  # fmt: skip


SVE_VLS: Final = REG_ARM64 | 6 << one_reg.REG_SIZE_SHIFT | SVE << REG_COPROC_SHIFT | 0xFFFF
"""KVM_REG_ARM64_SVE_VLS: a bit for each vector length, in quadwords from 1 on; set before KVM_ARM_VCPU_FINALIZE."""


class Needs(NamedTuple):
    """A register that means something to a guest only if an ID register says so."""

    register: int
    field: str
    least: int = 1


_TCRX, _SCTLRX = (Needs(IDS["ID_AA64MMFR3_EL1"], name) for name in ("TCRX", "SCTLRX"))
_S1PIE, _S1POE = (Needs(IDS["ID_AA64MMFR3_EL1"], name) for name in ("S1PIE", "S1POE"))
_MTE = Needs(PFR1, "MTE", 2)
_RAS = Needs(PFR0, "RAS")
NEEDS_SVE: Final = Needs(PFR0, "SVE")
_NEEDS: Final[dict[str, tuple[int, Needs]]] = {
    "TCR2_EL1": (sysreg(3, 0, 2, 0, 3), _TCRX),
    "SCTLR2_EL1": (sysreg(3, 0, 1, 0, 3), _SCTLRX),
    "PIRE0_EL1": (sysreg(3, 0, 10, 2, 2), _S1PIE),
    "PIR_EL1": (sysreg(3, 0, 10, 2, 3), _S1PIE),
    "POR_EL1": (sysreg(3, 0, 10, 2, 4), _S1POE),
    "POR_EL0": (sysreg(3, 3, 10, 2, 4), _S1POE),
    "RGSR_EL1": (sysreg(3, 0, 1, 0, 5), _MTE),
    "GCR_EL1": (sysreg(3, 0, 1, 0, 6), _MTE),
    "TFSR_EL1": (sysreg(3, 0, 5, 6, 0), _MTE),
    "TFSRE0_EL1": (sysreg(3, 0, 5, 6, 1), _MTE),
    "ZCR_EL1": (sysreg(3, 0, 1, 2, 0), NEEDS_SVE),
    "DISR_EL1": (one_reg.SYSREGS["DISR_EL1"], _RAS),
}
NEEDS: Final = dict(_NEEDS.values())
PHYSICAL_TIMER: Final = {
    sysreg(3, 3, 14, 0, 1): "CNTPCT_EL0",
    sysreg(3, 3, 14, 2, 1): "CNTP_CTL_EL0",
    sysreg(3, 3, 14, 2, 2): "CNTP_CVAL_EL0",
}
CNTP_CTL: Final = sysreg(3, 3, 14, 2, 1)
_NAMES: Final = (
    NAMES | IMPLEMENTATION | FIRMWARE | PHYSICAL_TIMER | {reg: name for name, (reg, _) in _NEEDS.items()}
    | {SVE_VLS: "SVE_VLS", CLIDR: "CLIDR_EL1", OSLSR: "OSLSR_EL1", sysreg(3, 3, 9, 12, 0): "PMCR_EL0",
       sysreg(3, 3, 14, 3, 1): "CNTV_CTL_EL0", sysreg(3, 3, 14, 3, 2): "CNTVCT_EL0 (by the id of CNTV_CVAL_EL0)",
       sysreg(3, 3, 14, 0, 2): "CNTV_CVAL_EL0 (by the id of CNTVCT_EL0)"}
)  # fmt: skip


def name(reg: int) -> str:
    """A register for people."""
    if reg in _NAMES:
        return _NAMES[reg]
    if kind(reg) == DEMUX:
        return f"CCSIDR_EL1 of CSSELR_EL1 {reg & 0xFF}"
    return one_reg.describe(reg)


def kind(reg: int) -> int:
    """Its "coprocessor": 0x10 core, 0x11 CCSIDR, 0x13 system register, 0x14 and 0x16 firmware, 0x15 SVE."""
    return (reg & REG_COPROC_MASK) >> REG_COPROC_SHIFT


def is_identity(reg: int) -> bool:
    """Whether it lies where KVM keeps feature ID registers: op0 3, op1 0, 1 or 3, CRn 0."""
    if reg & REG_ARCH_MASK != REG_ARM64 or reg & REG_COPROC_MASK != REG_SYSREG:
        return False
    op0, op1, crn = reg >> 14 & 3, reg >> 11 & 7, reg >> 7 & 15
    return op0 == 3 and op1 in (0, 1, 3) and crn == 0


def is_aarch32(reg: int) -> bool:
    """Whether it is an AArch64 view of an ID register of AArch32."""
    return reg & REG_COPROC_MASK == REG_SYSREG and reg & 0xFFC0 == 0xC000 and 1 <= reg >> 3 & 15 <= 3 and reg in NAMES


def has(registers: Mapping[int, int], needs: Needs) -> bool:
    """Whether the feature is there, by these ID registers."""
    found = field(needs.register, needs.field)
    return found.value(registers.get(needs.register, 0)) >= needs.least
