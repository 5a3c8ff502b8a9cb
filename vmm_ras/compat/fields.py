"""Fields of ID registers as Linux compares them (``arch/arm64/kernel/cpufeature.c``, ``arm64_ftr_regs``).

A field that KVM lets user space write may be set to any *safe* value: for most fields one that is not above the host's.
Bits that are no field, or that KVM keeps to itself, must equal the host's.  The table is that of 7.2; those of 6.1 and
6.12 have a part of the same fields, and none that differs.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from vmm_ras.kvm.one_reg import sysreg


class Field(NamedTuple):
    """One field."""

    name: str
    shift: int
    width: int
    signed: bool
    rule: str
    """``lower``, ``higher``, ``higher or zero``: which of two is safe; ``exact``: only ``safe`` beside its own."""
    safe: int = 0

    @property
    def mask(self) -> int:
        """Its bits."""
        return ((1 << self.width) - 1) << self.shift

    def value(self, register: int) -> int:
        """The field of a register's value, with its sign."""
        found = register >> self.shift & (1 << self.width) - 1
        return found - (1 << self.width) if self.signed and found >> self.width - 1 else found

    def is_safe(self, value: int, limit: int) -> bool:
        """Whether a guest may have ``value`` on a host that has ``limit``."""
        if value == limit:
            return True
        if self.rule == "lower":
            return value < limit
        if self.rule == "exact":
            return value == self.safe
        if self.rule == "higher or zero" and not (value and limit):
            return value == 0
        return value > limit

    def meet(self, values: list[int]) -> int:
        """The value that is safe on hosts that have these: the field in place, without sign."""
        if len(set(values)) == 1:
            safe = values[0]
        elif self.rule == "lower":
            safe = min(values)
        elif self.rule == "exact":
            safe = self.safe
        else:
            safe = 0 if self.rule == "higher or zero" and 0 in values else max(values)
        return (safe & (1 << self.width) - 1) << self.shift


_TABLE: Final[dict[str, tuple[tuple[int, int, int, int, int], str]]] = {
    # name:shift, /width where it is not 4, s: signed, =n: exact, >: higher, >0: higher or zero
    "ID_PFR0_EL1": ((3, 0, 0, 1, 0), "DIT:24 CSV2:16 State3:12 State2:8 State1:4 State0:0"),
    "ID_PFR1_EL1": (
        (3, 0, 0, 1, 1),
        "GIC:28 Virt_frac:24 Sec_frac:20 GenTimer:16 Virtualization:12 MProgMod:8 Security:4 ProgMod:0",
    ),
    "ID_DFR0_EL1": ((3, 0, 0, 1, 2), "PerfMon:24 MProfDbg:20 MMapTrc:16 CopTrc:12 MMapDbg:8 CopSDbg:4 CopDbg:0"),
    "ID_MMFR0_EL1": ((3, 0, 0, 1, 4), "InnerShr:28s FCSE:24 AuxReg:20 TCM:16 ShareLvl:12 OuterShr:8s PMSA:4 VMSA:0"),
    "ID_MMFR1_EL1": ((3, 0, 0, 1, 5), "bits28:28 bits24:24 bits20:20 bits16:16 bits12:12 bits8:8 bits4:4 bits0:0"),
    "ID_MMFR2_EL1": ((3, 0, 0, 1, 6), "bits28:28 bits24:24 bits20:20 bits16:16 bits12:12 bits8:8 bits4:4 bits0:0"),
    "ID_MMFR3_EL1": ((3, 0, 0, 1, 7), "bits28:28 bits24:24 bits20:20 bits16:16 bits12:12 bits8:8 bits4:4 bits0:0"),
    "ID_ISAR0_EL1": ((3, 0, 0, 2, 0), "Divide:24 Debug:20 Coproc:16 CmpBranch:12 BitField:8 BitCount:4 Swap:0"),
    "ID_ISAR1_EL1": ((3, 0, 0, 2, 1), "bits28:28 bits24:24 bits20:20 bits16:16 bits12:12 bits8:8 bits4:4 bits0:0"),
    "ID_ISAR2_EL1": ((3, 0, 0, 2, 2), "bits28:28 bits24:24 bits20:20 bits16:16 bits12:12 bits8:8 bits4:4 bits0:0"),
    "ID_ISAR3_EL1": ((3, 0, 0, 2, 3), "bits28:28 bits24:24 bits20:20 bits16:16 bits12:12 bits8:8 bits4:4 bits0:0"),
    "ID_ISAR4_EL1": (
        (3, 0, 0, 2, 4),
        "SWP_frac:28 PSR_M:24 SynchPrim_frac:20 Barrier:16 SMC:12 Writeback:8 WithShifts:4 Unpriv:0",
    ),
    "ID_ISAR5_EL1": ((3, 0, 0, 2, 5), "RDM:24 CRC32:16 SHA2:12 SHA1:8 AES:4 SEVL:0"),
    "ID_MMFR4_EL1": ((3, 0, 0, 2, 6), "EVT:28 CCIDX:24 LSM:20 HPDS:16 CnP:12 XNX:8 AC2:4 SpecSEI:0>"),
    "ID_ISAR6_EL1": ((3, 0, 0, 2, 7), "I8MM:24 BF16:20 SPECRES:16 SB:12 FHM:8 DP:4 JSCVT:0"),
    "MVFR0_EL1": ((3, 0, 0, 3, 0), "FPRound:28 FPShVec:24 FPSqrt:20 FPDivide:16 FPTrap:12 FPDP:8 FPSP:4 SIMDReg:0"),
    "MVFR1_EL1": ((3, 0, 0, 3, 1), "SIMDFMAC:28 FPHP:24 SIMDHP:20 SIMDSP:16 SIMDInt:12 SIMDLS:8 FPDNaN:4 FPFtZ:0"),
    "MVFR2_EL1": ((3, 0, 0, 3, 2), "FPMisc:4 SIMDMisc:0"),
    "ID_PFR2_EL1": ((3, 0, 0, 3, 4), "SSBS:4 CSV3:0"),
    "ID_DFR1_EL1": ((3, 0, 0, 3, 5), "MTPMU:0s"),
    "ID_MMFR5_EL1": ((3, 0, 0, 3, 6), "ETS:0"),
    "ID_AA64PFR0_EL1": (
        (3, 0, 0, 4, 0),
        (
            "CSV3:60 CSV2:56 DIT:48 AMU:44 MPAM:40 SEL2:36 SVE:32 RAS:28 GIC:24 AdvSIMD:20s FP:16s EL3:12 "
            "EL2:8 EL1:4 EL0:0"
        ),
    ),
    "ID_AA64PFR1_EL1": (
        (3, 0, 0, 4, 1),
        "DF2:56 GCS:44 MTE_frac:40s SME:24 MPAM_frac:16 RAS_frac:12 MTE:8 SSBS:4 BT:0",
    ),
    "ID_AA64PFR2_EL1": ((3, 0, 0, 4, 2), "FPMR:32 GCIE:12 MTEFAR:8 MTESTOREONLY:4"),
    "ID_AA64ZFR0_EL1": (
        (3, 0, 0, 4, 4),
        ("F64MM:56 F32MM:52 F16MM:48 I8MM:44 SM4:40 SHA3:32 B16B16:24 BF16:20 BitPerm:16 EltPerm:12 AES:4 SVEver:0"),
    ),
    "ID_AA64SMFR0_EL1": (
        (3, 0, 0, 4, 5),
        (
            "FA64:63/1=0 LUT6:61/1=0 LUTv2:60/1=0 SMEver:56=0 I16I64:52=0 F64F64:48/1=0 I16I32:44=0 "
            "B16B16:43/1=0 F16F16:42/1=0 F8F16:41/1=0 F8F32:40/1=0 I8I32:36=0 F16F32:35/1=0 B16F32:34/1=0 "
            "BI32I32:33/1=0 F32F32:32/1=0 SF8FMA:30/1=0 SF8DP4:29/1=0 SF8DP2:28/1=0 SBitPerm:25/1=0 "
            "AES:24/1=0 SFEXPA:23/1=0 STMOP:16/1=0 SMOP4:0/1=0"
        ),
    ),
    "ID_AA64FPFR0_EL1": (
        (3, 0, 0, 4, 7),
        (
            "F8CVT:31/1=0 F8FMA:30/1=0 F8DP4:29/1=0 F8DP2:28/1=0 F8MM8:27/1=0 F8MM4:26/1=0 F16MM2:15/1=0 "
            "F8E4M3:1/1=0 F8E5M2:0/1=0"
        ),
    ),
    "ID_AA64DFR0_EL1": ((3, 0, 0, 5, 0), "DoubleLock:36s PMSVer:32 CTX_CMPs:28 WRPs:20 BRPs:12 PMUVer:8 DebugVer:0"),
    "ID_AA64DFR1_EL1": ((3, 0, 0, 5, 1), ""),
    "ID_AA64ISAR0_EL1": (
        (3, 0, 0, 6, 0),
        ("RNDR:60 TLB:56 TS:52 FHM:48 DP:44 SM4:40 SM3:36 SHA3:32 RDM:28 ATOMIC:20 CRC32:16 SHA2:12 SHA1:8 AES:4"),
    ),
    "ID_AA64ISAR1_EL1": (
        (3, 0, 0, 6, 1),
        (
            "LS64:60 XS:56 I8MM:52 DGH:48 BF16:44 SPECRES:40 SB:36 FRINTTS:32 GPI:28 GPA:24 LRCPC:20 FCMA:16 "
            "JSCVT:12 API:8=0 APA:4=0 DPB:0"
        ),
    ),
    "ID_AA64ISAR2_EL1": (
        (3, 0, 0, 6, 2),
        "ATS1A:60 LUT:56 CSSC:52 RPRFM:48 CLRBHB:28 BC:20 MOPS:16 APA3:12=0 GPA3:8 RPRES:4 WFxT:0",
    ),
    "ID_AA64ISAR3_EL1": ((3, 0, 0, 6, 3), "FPRCVT:28 LSUI:24 LSFE:16 FAMINMAX:4"),
    "ID_AA64MMFR0_EL1": (
        (3, 0, 0, 7, 0),
        (
            "ECV:60 FGT:56 EXS:44 TGRAN4_2:40=1 TGRAN64_2:36=1 TGRAN16_2:32=1 TGRAN4:28s TGRAN64:24s "
            "TGRAN16:20 BIGENDEL0:16 SNSMEM:12 BIGEND:8 ASIDBITS:4 PARANGE:0"
        ),
    ),
    "ID_AA64MMFR1_EL1": (
        (3, 0, 0, 7, 1),
        (
            "ECBHB:60 TIDCP1:52 AFP:44 HCX:40 ETS:36 TWED:32 XNX:28 SpecSEI:24> PAN:20 LO:16 HPDS:12 VH:8 "
            "VMIDBits:4 HAFDBS:0"
        ),
    ),
    "ID_AA64MMFR2_EL1": (
        (3, 0, 0, 7, 2),
        ("E0PD:60 EVT:56 BBM:52 TTL:48 FWB:40 IDS:36 AT:32 ST:28 NV:24 CCIDX:20 VARange:16 IESB:12 LSM:8 UAO:4 CnP:0"),
    ),
    "ID_AA64MMFR3_EL1": ((3, 0, 0, 7, 3), "S1POE:16 S1PIE:8 SCTLRX:4 TCRX:0"),
    "ID_AA64MMFR4_EL1": ((3, 0, 0, 7, 4), "E2H0:24s NV_frac:20"),
    "CTR_EL0": (
        (3, 3, 0, 0, 1),
        "bits31:31/1=1 DIC:29/1 IDC:28/1 CWG:24>0 ERG:20>0 DminLine:16 L1Ip:14/2=2 IminLine:0",
    ),
}
_SYNTAX: Final = re.compile(r"(\w+):(\d+)(?:/(\d+))?(s?)(?:=(\d+)|(>0?))?")
_RULES: Final = {"": "lower", ">": "higher", ">0": "higher or zero"}


def _fields(text: str) -> tuple[Field, ...]:
    return tuple(
        Field(name, int(shift), int(width or 4), bool(sign), "exact" if safe else _RULES[rule], int(safe or 0))
        for name, shift, width, sign, safe, rule in _SYNTAX.findall(text)
    )


FIELDS: Final[dict[int, tuple[Field, ...]]] = {sysreg(*op): _fields(text) for op, text in _TABLE.values()}
"""Id of KVM_SET_ONE_REG to the register's fields."""
NAMES: Final[dict[int, str]] = {sysreg(*op): name for name, (op, _) in _TABLE.items()}
IDS: Final[dict[str, int]] = {name: reg for reg, name in NAMES.items()}


def field(reg: int, name: str) -> Field:
    """One field of a register.  Raises KeyError."""
    for found in FIELDS[reg]:
        if found.name == name:
            return found
    raise KeyError(name)
