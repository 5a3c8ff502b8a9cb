"""Names of bits in PSTATE, SCTLR_ELx, HCR_EL2, ESR_ELx and their kin (Arm ARM DDI 0487 C5.2.19, D1.3.1, D24.2)."""

from __future__ import annotations

from typing import Final

U64: Final = (1 << 64) - 1

# PSTATE in SPSR_ELx format (C5.2.19)
PSTATE_N: Final = 1 << 31
PSTATE_Z: Final = 1 << 30
PSTATE_C: Final = 1 << 29
PSTATE_V: Final = 1 << 28
PSTATE_NZCV: Final = 0xF << 28
PSTATE_TCO: Final = 1 << 25
PSTATE_DIT: Final = 1 << 24
PSTATE_UAO: Final = 1 << 23
PSTATE_PAN: Final = 1 << 22
PSTATE_SS: Final = 1 << 21
PSTATE_IL: Final = 1 << 20
PSTATE_ALLINT: Final = 1 << 13
PSTATE_SSBS: Final = 1 << 12
PSTATE_BTYPE: Final = 3 << 10
PSTATE_D: Final = 1 << 9
PSTATE_A: Final = 1 << 8
PSTATE_I: Final = 1 << 7
PSTATE_F: Final = 1 << 6
PSTATE_DAIF: Final = 0xF << 6
PSTATE_NRW: Final = 1 << 4
PSTATE_M: Final = 0x1F
"""M[4:0]: nRW, exception level and stack pointer."""
PSTATE_EL: Final = 3 << 2
"""M[3:2]: the exception level, 0 in AArch32 User mode too."""
EL0T: Final = 0x00
EL1T: Final = 0x04
EL1H: Final = 0x05
EL2T: Final = 0x08
EL2H: Final = 0x09
EL0_AARCH32: Final = 0x10
"""User mode in AArch32 state."""

# SCTLR_ELx (D24.2.175)
SCTLR_IESB: Final = 1 << 21
"""FEAT_IESB: taking an exception and returning from one synchronize errors."""
SCTLR_SPAN: Final = 1 << 23
"""1: taking an exception leaves PSTATE.PAN alone; 0: it sets it."""
SCTLR_DSSBS: Final = 1 << 44
"""What PSTATE.SSBS becomes on taking an exception."""
SCTLR_SPINTMASK: Final = 1 << 62
"""FEAT_NMI: 1 leaves PSTATE.ALLINT clear on taking an exception."""

# SCTLR2_ELx, FEAT_DoubleFault2
SCTLR2_NMEA: Final = 1 << 2
"""PSTATE.A does not mask SErrors."""
SCTLR2_EASE: Final = 1 << 5
"""Synchronous external aborts take the SError vector."""

# HCR_EL2 and HCRX_EL2: where exceptions of EL0 and EL1 go
HCR_AMO: Final = 1 << 5
"""SErrors go to EL2."""
HCR_TGE: Final = 1 << 27
"""What EL0 would take to EL1 goes to EL2."""
HCR_E2H: Final = 1 << 34
"""An operating system runs at EL2."""
HCR_TEA: Final = 1 << 37
"""Synchronous external aborts go to EL2."""
HCRX_SCTLR2EN: Final = 1 << 15
"""SCTLR2_EL1 counts; it is as if 0 otherwise."""
HCRX_TMEA: Final = 1 << 19
"""FEAT_DoubleFault2: external aborts that come while SErrors are masked go to EL2."""

# Vector offsets from VBAR_ELx (D1.3.1.4): a block by where the exception comes from, an entry by its kind
VECTOR_CURRENT_SP0: Final = 0x000
VECTOR_CURRENT_SPX: Final = 0x200
VECTOR_LOWER_AARCH64: Final = 0x400
VECTOR_LOWER_AARCH32: Final = 0x600
VECTOR_SYNCHRONOUS: Final = 0x000
VECTOR_IRQ: Final = 0x080
VECTOR_FIQ: Final = 0x100
VECTOR_SERROR: Final = 0x180

# ESR_ELx
ESR_EC_SHIFT: Final = 26
ESR_IL: Final = 1 << 25
ESR_ISS: Final = (1 << 25) - 1
EC_IABT_LOWER: Final = 0x20
EC_IABT_SAME: Final = 0x21
EC_DABT_LOWER: Final = 0x24
EC_DABT_SAME: Final = 0x25
EC_SERROR: Final = 0x2F

# ISS of an abort
ISS_ISV: Final = 1 << 24
ISS_VNCR: Final = 1 << 13
ISS_SET_SHIFT: Final = 11
ISS_SET: Final = 3 << 11
ISS_FNV: Final = 1 << 10
ISS_EA: Final = 1 << 9
ISS_CM: Final = 1 << 8
ISS_S1PTW: Final = 1 << 7
ISS_WNR: Final = 1 << 6
ISS_DFSC: Final = 0x3F
SET_UER: Final = 0
"""Recoverable."""
SET_UC: Final = 2
"""Uncontainable."""
SET_UEO: Final = 3
"""Restartable."""
DFSC_SEA: Final = 0x10
"""Synchronous external abort, not on a translation table walk."""
DFSC_SEA_TTW: Final = frozenset({0x13, 0x14, 0x15, 0x16, 0x17})
"""... on a walk, level -1 to 3."""
DFSC_PARITY: Final = frozenset({0x18, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F})
"""Parity or ECC error: not reported where FEAT_RAS is implemented."""

# ISS of an SError, which is also VSESR_EL2[24:0]; DISR_EL1 has the same fields
ISS_IDS: Final = 1 << 24
ISS_IESB: Final = 1 << 13
ISS_AET_SHIFT: Final = 10
ISS_AET: Final = 7 << 10
DFSC_SERROR: Final = 0x11
"""Asynchronous SError with an architected syndrome; 0 is uncategorised."""
AET: Final = {"uc": 0b000, "ueu": 0b001, "ueo": 0b010, "uer": 0b011, "ce": 0b110}
"""Asynchronous error types: uncontainable, unrecoverable, restartable, recoverable, corrected."""
DISR_A: Final = 1 << 31
"""DISR_EL1: an SError was deferred by an ESB."""
ISR_A: Final = 1 << 8
"""ISR_EL1: an SError is pending."""
