"""The fields of an ESR_ELx by name, for people (Arm ARM DDI 0487 D24.2.40)."""

from __future__ import annotations

from typing import Final

from vmm_ras.arm64.registers import (
    AET,
    DFSC_SEA,
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
    ISS_IESB,
    ISS_ISV,
    ISS_S1PTW,
    ISS_SET,
    ISS_SET_SHIFT,
    ISS_WNR,
    SET_UC,
    SET_UEO,
    SET_UER,
)

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
