"""Syndrome rules: which ESR a guest may be shown for lost memory (Arm ARM DDI 0487 D24.2.40; RAS supplement DDI 0587).

``el`` is always the exception level that was interrupted, ``target`` the one that the exception is taken to.
"""

from __future__ import annotations

from typing import Final

from vmm_ras.arm64.registers import (
    AET,
    DFSC_PARITY,
    DFSC_SEA,
    DFSC_SEA_TTW,
    DFSC_SERROR,
    EC_DABT_LOWER,
    EC_DABT_SAME,
    EC_IABT_LOWER,
    EC_IABT_SAME,
    EC_SERROR,
    ESR_EC_SHIFT,
    ESR_IL,
    ESR_ISS,
    ISS_AET,
    ISS_AET_SHIFT,
    ISS_CM,
    ISS_DFSC,
    ISS_EA,
    ISS_FNV,
    ISS_IDS,
    ISS_S1PTW,
    ISS_SET,
    ISS_SET_SHIFT,
    ISS_WNR,
    SET_UC,
    SET_UEO,
    SET_UER,
    U64,
)
from vmm_ras.errors import InputError


def _abort_ec(el: int, instruction: bool, target: int | None = None) -> int:
    if target is None:
        target = el or 1
    if not (0 <= el <= target and target in (1, 2)):
        raise InputError(f"exception level {el} to {target}: an SEA is taken to EL1 or EL2, from there or from below")
    return (EC_IABT_LOWER if instruction else EC_DABT_LOWER) | (el == target)


def sea_esr(
    el: int,
    far: int | None,
    *,
    dfsc: int = DFSC_SEA,
    ea: int = 0,
    set_: int = SET_UER,
    wnr: int = 0,
    s1ptw: int = 0,
    instruction: bool = False,
    target: int | None = None,
    ras: bool = True,
    force: bool = False,
) -> int:
    """ESR_ELx of a synchronous external abort that interrupts ``el`` (ISS of data and instruction aborts, D24.2.40).

    It is taken to EL1, and from EL2 to EL2, unless ``target`` says otherwise.  ``far`` is the guest virtual address,
    or None where it is not known: FnV is set then, and FAR_ELx must stay untouched.  ``ras`` says whether the guest
    sees FEAT_RAS.  ``force`` allows parity codes for such a guest, to see how it takes them.

    Raises InputError for what the architecture has no encoding for: FnV or SET with a status code other than 0x10,
    WnR of an instruction abort, S1PTW of anything but a walk of EL1's tables seen from EL2, SET 1 or without FEAT_RAS,
    status codes that are no external abort.
    """
    esr = _abort_ec(el, instruction, target) << ESR_EC_SHIFT | ESR_IL | dfsc
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
    if s1ptw:
        if target != 2 or el == 2 or dfsc == DFSC_SEA:
            raise InputError("S1PTW: only EL2 is told that a walk of EL1's tables met the abort, with a code of a walk")
        esr |= ISS_S1PTW
    return esr


def relay(host_esr: int, el: int, far: int | None, *, ras: bool = True) -> int:
    """The host's own syndrome of an SEA (``arm_sea.esr`` of KVM_EXIT_ARM_SEA), made fit for the guest's ESR_EL1.

    EC becomes that of the interrupted ``el``; IL is set; ISV and what depends on it, VNCR, S1PTW and ISS2 are cleared,
    since they speak of the host's view; FnV follows ``far``, and SET counts only with ``ras``, as in ``sea_esr``.

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
    if dfsc == DFSC_SEA and ras:
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
