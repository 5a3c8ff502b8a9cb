"""Taking an exception to AArch64: what it does to PSTATE, and which vector it goes to (Arm ARM DDI 0487 D1.3.1)."""

from __future__ import annotations

from typing import Final, NamedTuple

from vmm_ras.arm64.registers import (
    EL0_AARCH32,
    EL0T,
    EL1H,
    EL1T,
    EL2H,
    EL2T,
    PSTATE_ALLINT,
    PSTATE_BTYPE,
    PSTATE_DAIF,
    PSTATE_DIT,
    PSTATE_IL,
    PSTATE_M,
    PSTATE_NZCV,
    PSTATE_PAN,
    PSTATE_SS,
    PSTATE_SSBS,
    PSTATE_TCO,
    PSTATE_UAO,
    SCTLR_DSSBS,
    SCTLR_SPAN,
    SCTLR_SPINTMASK,
    VECTOR_CURRENT_SP0,
    VECTOR_CURRENT_SPX,
    VECTOR_LOWER_AARCH32,
    VECTOR_LOWER_AARCH64,
)
from vmm_ras.errors import InputError


class Features(NamedTuple):
    """What a PE implements, as far as exceptions show it.  The defaults are those of a Neoverse N1."""

    ras: bool = True
    """FEAT_RAS: SErrors have a syndrome, ESB and DISR_EL1 exist, parity codes do not."""
    pan: bool = True
    uao: bool = True
    ssbs: bool = True
    dit: bool = False
    bti: bool = False
    mte: bool = False
    """FEAT_MTE2: PSTATE.TCO exists, and exceptions set it."""
    nmi: bool = False
    """FEAT_NMI: PSTATE.ALLINT exists."""
    iesb: bool = True
    """FEAT_IESB: SCTLR_ELx.IESB exists."""
    double_fault2: bool = False
    """FEAT_DoubleFault2: SCTLR2_ELx.EASE and NMEA, and HCRX_EL2.TMEA, exist."""

    @classmethod
    def of_id_registers(cls, pfr0: int, pfr1: int, mmfr1: int, mmfr2: int) -> Features:
        """What ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, ID_AA64MMFR1_EL1 and ID_AA64MMFR2_EL1 of a guest say."""

        def field(register: int, low: int) -> int:
            return register >> low & 0xF

        return cls(
            ras=field(pfr0, 28) > 0,
            pan=field(mmfr1, 20) > 0,
            uao=field(mmfr2, 4) > 0,
            ssbs=field(pfr1, 4) > 0,
            dit=field(pfr0, 48) > 0,
            bti=field(pfr1, 0) > 0,
            mte=field(pfr1, 8) > 1,
            nmi=field(pfr1, 36) > 0,
            iesb=field(mmfr2, 12) > 0,
            double_fault2=field(pfr1, 56) > 0,
        )

    def id_registers(self) -> tuple[int, int, int, int]:
        """The fields of the four registers that ``of_id_registers`` looks at, the others 0.

        EL1 is AArch64; EL0, as a vCPU can run AArch32 there, both.
        """
        return (
            0x12 | self.ras << 28 | self.dit << 48,
            self.bti | self.ssbs << 4 | (2 if self.mte else 0) << 8 | self.nmi << 36 | self.double_fault2 << 56,
            self.pan << 20,
            self.uao << 4 | self.iesb << 12,
        )


NEOVERSE_N1: Final = Features()

_VECTOR_BLOCK: Final = {
    EL1T: VECTOR_CURRENT_SP0,
    EL1H: VECTOR_CURRENT_SPX,
    EL0T: VECTOR_LOWER_AARCH64,
    EL0_AARCH32: VECTOR_LOWER_AARCH32,
}
_VECTOR_BLOCK_EL2: Final = {
    EL2T: VECTOR_CURRENT_SP0,
    EL2H: VECTOR_CURRENT_SPX,
    EL1T: VECTOR_LOWER_AARCH64,
    EL1H: VECTOR_LOWER_AARCH64,
    EL0T: VECTOR_LOWER_AARCH64,
    EL0_AARCH32: VECTOR_LOWER_AARCH64,
}
EL_MODES: Final = frozenset(_VECTOR_BLOCK)
"""PSTATE.M values that a guest at EL0 and EL1 can be in (EL1 is AArch64)."""


def exception_level(pstate: int) -> int:
    """Exception level 0, 1 or 2 of a PSTATE, AArch32 User mode included."""
    return pstate >> 2 & 3


def vector_blocks(target: int = 1, host: bool = False) -> dict[int, int]:
    """Offset of the block of vectors per interrupted PSTATE.M, of exceptions taken to EL1 or EL2 (D1.3.1.4).

    The "lower EL" blocks of EL2 go by the width of EL1, which is AArch64 here; where EL2 is the ``host`` of EL0
    (HCR_EL2.E2H and TGE), by that of EL0.
    """
    if target == 1:
        return dict(_VECTOR_BLOCK)
    return _VECTOR_BLOCK_EL2 | ({EL0_AARCH32: VECTOR_LOWER_AARCH32} if host else {})


def vector_block(pstate: int) -> int:
    """Offset of the block of vectors that an exception to EL1 uses when it interrupts ``pstate`` (D1.3.1.4).

    Raises InputError where ``pstate`` is neither at EL0 nor at EL1.
    """
    try:
        return _VECTOR_BLOCK[pstate & PSTATE_M]
    except KeyError:
        raise InputError(f"PSTATE.M {pstate & PSTATE_M:#x}: expected EL0t, EL1t, EL1h or AArch32 User") from None


def entry_bits(features: Features, sctlr: int, *, mode: int = EL1H, span: bool = True) -> tuple[int, int]:
    """How taking an exception changes PSTATE: the mask of bits that stay, and the bits that are set (D1.3.1.2).

    ``sctlr`` is SCTLR_ELx of the target, whose handler mode ``mode`` is; ``span`` says whether its SPAN is looked at,
    which at EL2 it is only with HCR_EL2.E2H and TGE.  The new PSTATE is ``old & keep | set``.
    """
    keep = PSTATE_NZCV
    new = PSTATE_DAIF | mode
    if features.pan:
        keep |= PSTATE_PAN
        if span and not sctlr & SCTLR_SPAN:
            new |= PSTATE_PAN
    if features.dit:
        keep |= PSTATE_DIT
    if features.ssbs and sctlr & SCTLR_DSSBS:
        new |= PSTATE_SSBS
    if features.mte:
        new |= PSTATE_TCO
    if features.nmi and not sctlr & SCTLR_SPINTMASK:
        new |= PSTATE_ALLINT
    return keep, new


def entry_pstate(pstate: int, sctlr: int, features: Features = NEOVERSE_N1) -> int:
    """PSTATE after an exception was taken from ``pstate`` to EL1."""
    keep, new = entry_bits(features, sctlr)
    return pstate & keep | new


def implemented_bits(features: Features, aarch32: bool = False) -> int:
    """Mask of the PSTATE bits that the PE has; an exception return drops the others.

    ``aarch32``: of a return to AArch32, where SPSR has Q, IT, GE, E and T too, and SSBS in place of UAO (C5.2.19).
    """
    if aarch32:
        absent = PSTATE_DIT * (not features.dit) | PSTATE_UAO * (not features.ssbs) | PSTATE_PAN * (not features.pan)
        return 0xFFFF_FFFF & ~absent
    mask = PSTATE_NZCV | PSTATE_SS | PSTATE_IL | PSTATE_DAIF | PSTATE_M
    for present, bit in (
        (features.mte, PSTATE_TCO),
        (features.dit, PSTATE_DIT),
        (features.uao, PSTATE_UAO),
        (features.pan, PSTATE_PAN),
        (features.nmi, PSTATE_ALLINT),
        (features.ssbs, PSTATE_SSBS),
        (features.bti, PSTATE_BTYPE),
    ):
        if present:
            mask |= bit
    return mask
