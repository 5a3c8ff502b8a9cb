"""AArch64 exception entry and syndromes (Arm ARM DDI 0487 D1.3, D24.2.40 ESR_EL1; RAS supplement DDI 0587).

Constants carry the names of the Arm ARM.  The functions are the *syndrome rules*: which ESR a guest may be shown for
lost memory, given what the host knows.  ``el`` is always the exception level that was interrupted (0 or 1); the
exception is taken to EL1.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from vmm_ras.errors import InputError

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
EL0T: Final = 0x00
EL1T: Final = 0x04
EL1H: Final = 0x05
EL0_AARCH32: Final = 0x10
"""User mode in AArch32 state."""

# SCTLR_EL1 (D24.2.175)
SCTLR_SPAN: Final = 1 << 23
"""1: taking an exception leaves PSTATE.PAN alone; 0: it sets it."""
SCTLR_DSSBS: Final = 1 << 44
"""What PSTATE.SSBS becomes on taking an exception."""
SCTLR_SPINTMASK: Final = 1 << 62
"""FEAT_NMI: 1 leaves PSTATE.ALLINT clear on taking an exception."""

# Vector offsets from VBAR_EL1 (D1.3.1.4): a block by where the exception comes from, an entry by its kind
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


NEOVERSE_N1: Final = Features()

_VECTOR_BLOCK: Final = {
    EL1T: VECTOR_CURRENT_SP0,
    EL1H: VECTOR_CURRENT_SPX,
    EL0T: VECTOR_LOWER_AARCH64,
    EL0_AARCH32: VECTOR_LOWER_AARCH32,
}
EL_MODES: Final = frozenset(_VECTOR_BLOCK)
"""PSTATE.M values that a guest at EL0 and EL1 can be in (EL1 is AArch64)."""


def exception_level(pstate: int) -> int:
    """Exception level 0 or 1 of a PSTATE, AArch32 User mode included."""
    return 0 if pstate & PSTATE_NRW else pstate >> 2 & 3


def vector_block(pstate: int) -> int:
    """Offset of the block of vectors that an exception to EL1 uses when it interrupts ``pstate`` (D1.3.1.4).

    Raises InputError where ``pstate`` is neither at EL0 nor at EL1.
    """
    try:
        return _VECTOR_BLOCK[pstate & PSTATE_M]
    except KeyError:
        raise InputError(f"PSTATE.M {pstate & PSTATE_M:#x}: expected EL0t, EL1t, EL1h or AArch32 User") from None


def entry_bits(features: Features, sctlr: int) -> tuple[int, int]:
    """How taking an exception to EL1 changes PSTATE: the mask of bits that stay, and the bits that are set.

    D1.3.1.2; ``sctlr`` is SCTLR_EL1.  The new PSTATE is ``old & keep | set``.
    """
    keep = PSTATE_NZCV
    new = PSTATE_DAIF | EL1H
    if features.pan:
        keep |= PSTATE_PAN
        if not sctlr & SCTLR_SPAN:
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


def entry_pstate(pstate: int, sctlr: int = 0, features: Features = NEOVERSE_N1) -> int:
    """PSTATE after an exception was taken from ``pstate`` to EL1."""
    keep, new = entry_bits(features, sctlr)
    return pstate & keep | new


def implemented_bits(features: Features) -> int:
    """Mask of the PSTATE bits that the PE has; an exception return drops the others."""
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


def _abort_ec(el: int, instruction: bool) -> int:
    if el not in (0, 1):
        raise InputError(f"exception level {el}: an SEA for EL1 comes from 0 or 1")
    return (EC_IABT_LOWER if instruction else EC_DABT_LOWER) | el


def sea_esr(
    el: int,
    far: int | None,
    *,
    dfsc: int = DFSC_SEA,
    ea: int = 0,
    set_: int = SET_UER,
    wnr: int = 0,
    instruction: bool = False,
    ras: bool = True,
    force: bool = False,
) -> int:
    """ESR_EL1 of a synchronous external abort that interrupts ``el`` (ISS of data and instruction aborts, D24.2.40).

    ``far`` is the guest virtual address, or None where it is not known: FnV is set then, and FAR_EL1 must stay
    untouched.  ``ras`` says whether the guest sees FEAT_RAS.  ``force`` allows parity codes for such a guest, to see
    how it takes them.

    Raises InputError for what the architecture has no encoding for: FnV or SET with a status code other than 0x10,
    WnR of an instruction abort, SET 1 or without FEAT_RAS, status codes that are no external abort.
    """
    esr = _abort_ec(el, instruction) << ESR_EC_SHIFT | ESR_IL | dfsc
    if dfsc != DFSC_SEA:
        if dfsc in DFSC_PARITY:
            if ras and not force:
                raise InputError(f"DFSC {dfsc:#x}: a guest with FEAT_RAS gets no parity codes, unless forced")
        elif dfsc not in DFSC_SEA_TTW:
            raise InputError(f"DFSC {dfsc:#x} is no external abort: expected 0x10, 0x13-0x17, 0x18 or 0x1b-0x1f")
        if far is None:
            raise InputError(f"DFSC {dfsc:#x} needs a guest address: FnV is RES0 for all codes but 0x10")
        if set_:
            raise InputError(f"SET {set_} with DFSC {dfsc:#x}: SET is defined for code 0x10 only")
    if far is None:
        esr |= ISS_FNV
    elif not 0 <= far <= U64:
        raise InputError(f"FAR {far:#x} is no 64-bit address")
    if set_:
        if set_ not in (SET_UC, SET_UEO):
            raise InputError(f"SET {set_}: expected 0 (recoverable), 2 (uncontainable) or 3 (restartable)")
        if not ras:
            raise InputError(f"SET {set_}: the field is RES0 without FEAT_RAS")
        esr |= set_ << ISS_SET_SHIFT
    if ea:
        esr |= ISS_EA
    if wnr:
        if instruction:
            raise InputError("WnR: an instruction abort is never a write")
        esr |= ISS_WNR
    return esr


def relay(host_esr: int, el: int, far: int | None) -> int:
    """The host's own syndrome of an SEA (``arm_sea.esr`` of KVM_EXIT_ARM_SEA), made fit for the guest's ESR_EL1.

    EC becomes that of the interrupted ``el``; IL is set; ISV and what depends on it, VNCR, S1PTW and ISS2 are cleared,
    since they speak of the host's view; FnV follows ``far``, as in ``sea_esr``.

    Raises InputError where the host's ESR is no external abort, or where there is no honest syndrome: no address, and
    a status code for which FnV is RES0.
    """
    ec = host_esr >> ESR_EC_SHIFT & 0x3F
    if ec not in (EC_IABT_LOWER, EC_IABT_SAME, EC_DABT_LOWER, EC_DABT_SAME):
        raise InputError(f"ESR {host_esr:#x}: EC {ec:#x} is no abort, so it cannot be relayed as an SEA")
    dfsc = host_esr & ISS_DFSC
    if dfsc != DFSC_SEA and dfsc not in DFSC_SEA_TTW and dfsc not in DFSC_PARITY:
        raise InputError(f"ESR {host_esr:#x}: DFSC {dfsc:#x} is no external abort")
    instruction = ec <= EC_IABT_SAME
    kept = ISS_EA | ISS_DFSC
    if dfsc == DFSC_SEA:
        kept |= ISS_SET
    if not instruction:
        kept |= ISS_CM | ISS_WNR
    esr = _abort_ec(el, instruction) << ESR_EC_SHIFT | ESR_IL | host_esr & kept
    if far is None:
        if dfsc != DFSC_SEA:
            raise InputError(f"ESR {host_esr:#x}: DFSC {dfsc:#x} needs a guest address: FnV is RES0 for it")
        esr |= ISS_FNV
    return esr


def serror_esr(vsesr: int) -> int:
    """ESR_EL1 of a virtual SError with this VSESR_EL2 (IDS and ISS, 25 bits).  Raises InputError for other bits."""
    if vsesr & ~ESR_ISS:
        raise InputError(f"SError syndrome {vsesr:#x}: only bits 24:0 exist")
    return EC_SERROR << ESR_EC_SHIFT | ESR_IL | vsesr


def serror_iss(aet: str, ea: int = 0) -> int:
    """Syndrome (for VSESR_EL2) of an SError of type ``uc``, ``ueu``, ``ueo``, ``uer`` or ``ce``."""
    try:
        bits = AET[aet]
    except KeyError:
        raise InputError(f"SError type {aet!r}: expected one of {', '.join(AET)}") from None
    return bits << ISS_AET_SHIFT | (ISS_EA if ea else 0) | DFSC_SERROR


_AET_RANK: Final = {AET["ce"]: 0, AET["ueo"]: 1, AET["uer"]: 2, AET["ueu"]: 3, AET["uc"]: 4}
_RANK_UNKNOWN: Final = 5


def aet_rank(vsesr: int) -> int:
    """How bad an SError syndrome is: ce 0, ueo 1, uer 2, ueu 3, uc 4, and 5 where nobody can tell.

    Reserved types count as uncontainable; an IMPLEMENTATION DEFINED (IDS) or uncategorised one is the worst, because
    software must assume so.
    """
    if vsesr & ISS_IDS or vsesr & ISS_DFSC != DFSC_SERROR:
        return _RANK_UNKNOWN
    return _AET_RANK.get((vsesr & ISS_AET) >> ISS_AET_SHIFT, _AET_RANK[AET["uc"]])


def merge_serror(old: int | None, new: int) -> int:
    """Which syndrome stays when an SError comes while ``old`` is pending: the worse, and the older of equals."""
    return new if old is None or aet_rank(new) > aet_rank(old) else old


_EC_NAMES: Final = {
    0x00: "unknown reason",
    0x01: "WFI or WFE",
    0x07: "access to SVE, SIMD or floating-point",
    0x0E: "illegal execution state",
    0x15: "SVC from AArch64",
    0x16: "HVC from AArch64",
    0x17: "SMC from AArch64",
    0x18: "MSR, MRS or system instruction",
    0x19: "access to SVE",
    EC_IABT_LOWER: "instruction abort from a lower EL",
    EC_IABT_SAME: "instruction abort from the same EL",
    0x22: "PC alignment fault",
    EC_DABT_LOWER: "data abort from a lower EL",
    EC_DABT_SAME: "data abort from the same EL",
    0x26: "SP alignment fault",
    0x2C: "floating-point exception from AArch64",
    0x2D: "GCS exception",
    EC_SERROR: "SError",
    0x30: "breakpoint from a lower EL",
    0x31: "breakpoint from the same EL",
    0x32: "software step from a lower EL",
    0x33: "software step from the same EL",
    0x34: "watchpoint from a lower EL",
    0x35: "watchpoint from the same EL",
    0x3C: "BRK from AArch64",
}
_DFSC_NAMES: Final = {
    **{i: f"address size fault, level {i}" for i in range(4)},
    **{4 + i: f"translation fault, level {i}" for i in range(4)},
    **{8 + i: f"access flag fault, level {i}" for i in range(4)},
    **{12 + i: f"permission fault, level {i}" for i in range(4)},
    DFSC_SEA: "synchronous external abort",
    0x11: "synchronous tag check fault",
    **{0x14 + i: f"synchronous external abort on a walk, level {i}" for i in range(-1, 4)},
    0x18: "synchronous parity or ECC error",
    **{0x1C + i: f"synchronous parity or ECC error on a walk, level {i}" for i in range(-1, 4)},
    0x21: "alignment fault",
    0x30: "TLB conflict",
    0x35: "unsupported exclusive or atomic",
}
_SET_NAMES: Final = {SET_UER: "recoverable", SET_UC: "uncontainable", SET_UEO: "restartable"}
_AET_NAMES: Final = {bits: name for name, bits in AET.items()}


def describe_esr(esr: int) -> dict[str, int | str | bool]:
    """The fields of an ESR_ELx by name, for people: only those that its EC has.

    Any integer can be described; codes without a name are called ``reserved``.
    """
    ec = esr >> ESR_EC_SHIFT & 0x3F
    iss = esr & ESR_ISS
    out: dict[str, int | str | bool] = {
        "ec": ec,
        "ec_name": _EC_NAMES.get(ec, "reserved"),
        "il": bool(esr & ESR_IL),
    }
    if ec in (EC_IABT_LOWER, EC_IABT_SAME, EC_DABT_LOWER, EC_DABT_SAME):
        data = ec >= EC_DABT_LOWER
        dfsc = iss & ISS_DFSC
        if data:
            out["isv"] = bool(iss & ISS_ISV)
        if dfsc == DFSC_SEA:
            set_ = (iss & ISS_SET) >> ISS_SET_SHIFT
            out |= {"set": set_, "set_name": _SET_NAMES.get(set_, "reserved"), "fnv": bool(iss & ISS_FNV)}
        out |= {"ea": bool(iss & ISS_EA), "s1ptw": bool(iss & ISS_S1PTW)}
        if data:
            out |= {"cm": bool(iss & ISS_CM), "wnr": bool(iss & ISS_WNR)}
        out |= {"dfsc": dfsc, "dfsc_name": _DFSC_NAMES.get(dfsc, "reserved")}
    elif ec == EC_SERROR:
        out["ids"] = bool(iss & ISS_IDS)
        if iss & ISS_IDS:
            out["iss"] = iss & ~ISS_IDS
        else:
            dfsc = iss & ISS_DFSC
            out |= {"dfsc": dfsc, "dfsc_name": {0: "uncategorised", 0x11: "SError"}.get(dfsc, "reserved")}
            if dfsc == DFSC_SERROR:
                aet = (iss & ISS_AET) >> ISS_AET_SHIFT
                out |= {"aet": aet, "aet_name": _AET_NAMES.get(aet, "reserved")}
            out |= {"ea": bool(iss & ISS_EA), "iesb": bool(iss & ISS_IESB)}
    else:
        out["iss"] = iss
    return out
