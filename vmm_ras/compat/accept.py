"""Whether KVM of a host takes a value by KVM_SET_ONE_REG, and why not (Linux ``arch/arm64/kvm/sys_regs.c``).

The guest has not run yet: after its first KVM_RUN an ID register takes only the value that it has.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from vmm_ras.compat import registers as r
from vmm_ras.compat.fields import FIELDS, IDS, NAMES, field
from vmm_ras.compat.host import Description
from vmm_ras.kvm.events import CAP_ARM_WRITABLE_IMP_ID_REGS
from vmm_ras.kvm.one_reg import CORE, size_of

MASKED: Final = "writable mask"
PSCI: Final = (0x0000_0002, 0x0001_0000, 0x0001_0001, 0x0001_0002, 0x0001_0003)
"""Versions of PSCI that KVM knows; a host takes those up to its own."""
_VENDOR_2: Final = 3
"""Bits of VENDOR_HYP_BMAP_2 that a host has: DISCOVER_IMPL_VER and DISCOVER_IMPL_CPUS; it is 0 after a reset."""
_LEVEL, _WA2_ENABLED = 0xF, 1 << 4
_WA2_LEVEL: Final = {0: 0, 1: 0, 2: 3, 3: 3}
_OSLK: Final = 1 << 1
_CLIDR_RES0: Final = ~((1 << 47) - 1)


class Refusal(NamedTuple):
    """KVM_SET_ONE_REG fails."""

    errno: str
    why: str


def refusal(host: Description, reg: int, value: int, *, own_cpu: bool = False) -> Refusal | None:
    """Why the host refuses the value, or None: it takes it.

    ``own_cpu``: the VMM does not turn on KVM_CAP_ARM_WRITABLE_IMP_ID_REGS even where the host has it.
    """
    if reg not in host.registers:
        if r.kind(reg) == r.CORE_KIND and size_of(reg) == 16 and "sve" in host.features:
            return Refusal("EINVAL", "a vCPU with SVE has Z registers in place of V: make it without SVE")
        return Refusal("ENOENT", "not in the host's register list")
    if value >> 8 * size_of(reg):
        return Refusal("EINVAL", f"more than the register's {size_of(reg)} bytes")
    limit = host.registers[reg]
    if reg in r.IMPLEMENTATION:
        return _implementation(host, reg, value, limit, own_cpu)
    if reg == r.CLIDR:
        return _clidr(host, value, limit)
    if r.is_identity(reg) and reg in FIELDS:
        return _identity(host, reg, value, limit)
    if r.is_identity(reg) and 1 <= reg >> 3 & 15 <= 7 and reg >> 11 & 7 == 0:
        return None if value == limit else Refusal("EINVAL", "reads as zero, and takes nothing else")
    kind = r.kind(reg)
    if kind == r.DEMUX:
        return _ccsidr(host, reg & 0xFF, value, limit)
    if kind in (r.FW, r.FW_BITMAP):
        return _firmware(reg, value, limit)
    if reg == r.SVE_VLS:
        return _vectors(value, limit)
    if reg == r.OSLSR and (value ^ limit) & ~_OSLK:
        return Refusal("EINVAL", "only OSLK can differ")
    if reg == CORE["PSTATE"]:
        return _pstate(host, value)
    return None


def writable_bits(host: Description, reg: int) -> int:
    """The bits of an ID register that user space can set on the host."""
    if host.writable is not None:
        return host.writable.get(reg, 0)
    # before 6.7 there is no call that tells
    if reg == r.PFR0 and host.release >= (5, 11):
        return 0xFF << 56  # CSV2 and CSV3
    if reg == IDS["ID_AA64DFR0_EL1"] and host.release >= (6, 2):
        return 0xF << 8  # PMUVer
    if reg == IDS["ID_DFR0_EL1"] and host.release >= (6, 2):
        return 0xF << 24  # PerfMon
    return 0


def has_masks(host: Description) -> bool:
    """Whether ID registers are writable field by field (from 6.7 on)."""
    return host.writable is not None


def _implementation(host: Description, reg: int, value: int, limit: int, own_cpu: bool) -> Refusal | None:
    if value == limit:
        return None
    if not host.capability(CAP_ARM_WRITABLE_IMP_ID_REGS):
        return Refusal("EINVAL", "the host's CPU has another one, and its kernel shows no other (before 6.15)")
    if own_cpu:
        return Refusal("EINVAL", "the host's CPU has another one, and KVM_CAP_ARM_WRITABLE_IMP_ID_REGS is off")
    outside = value & ~writable_bits(host, reg)
    return Refusal("EINVAL", f"bits {outside:#x} are outside the writable mask") if outside else None


def _identity(host: Description, reg: int, value: int, limit: int) -> Refusal | None:
    if r.is_aarch32(reg) and not host.aarch32 and reg != IDS["ID_DFR1_EL1"]:
        return None  # RAZ/WI to user space: any value is ignored
    value, wrong = _history(host, reg, value, limit)
    if wrong is not None:
        return wrong
    mask, compared, higher = writable_bits(host, reg), 0, []
    for found in FIELDS[reg]:
        if found.mask & mask != found.mask:
            continue
        compared |= found.mask
        mine, theirs = found.value(value), found.value(limit)
        if not found.is_safe(mine, theirs):
            higher.append(f"{found.name} {mine} is not safe where the host has {theirs}")
    fixed = (value ^ limit) & ~compared
    if fixed:
        higher.append(f"{_names(reg, fixed)} cannot be written")
    return Refusal("EINVAL", "; ".join(higher)) if higher else None


def _names(reg: int, bits: int) -> str:
    """Fields that differ in these bits."""
    named = [found for found in FIELDS[reg] if found.mask & bits]
    rest = bits
    for found in named:
        rest &= ~found.mask
    return ", ".join([found.name for found in named] + ([f"bits {rest:#x}"] if rest else []))


def _history(host: Description, reg: int, value: int, limit: int) -> tuple[int, Refusal | None]:
    """Values of older kernels that KVM puts right, and those that it never takes."""
    name = NAMES[reg]
    if name == "ID_AA64DFR0_EL1" and writable_bits(host, reg):
        if value >> 8 & 0xF == 0xF:  # an IMP DEF PMU, which kernels before 6.2 showed
            value &= ~(0xF << 8)
        if has_masks(host) and value & 0xF < 6:
            return value, Refusal("EINVAL", "DebugVer below 6 is no Armv8")
    elif name == "ID_DFR0_EL1" and writable_bits(host, reg):
        if value >> 24 & 0xF == 0xF:
            value &= ~(0xF << 24)
        if 0 < value >> 24 & 0xF < 3:
            return value, Refusal("EINVAL", "PerfMon below 3 is no PMUv3")
        if has_masks(host) and value & 0xF < 6:
            return value, Refusal("EINVAL", "CopDbg below 6 is no Armv8")
    elif name == "CTR_EL0" and has_masks(host) and writable_bits(host, reg) >> 14 & 3 and value >> 14 & 3 < 2:
        return value, Refusal("EINVAL", "L1Ip is neither VIPT nor PIPT")
    elif (
        name == "ID_AA64PFR0_EL1"
        and host.capability(CAP_ARM_WRITABLE_IMP_ID_REGS)
        and not (value & 0xF and value >> 4 & 0xF)
    ):
        return value, Refusal("EINVAL", "a guest has AArch64 at EL0 and EL1")
    return value, None


def _clidr(host: Description, value: int, limit: int) -> Refusal | None:
    if value == limit:
        return None
    if host.release < (6, 3):
        return Refusal("EINVAL", "the host's kernel shows its own caches only (before 6.3)")
    if value & _CLIDR_RES0:
        return Refusal("EINVAL", "bits that are RES0")
    coherent = not value >> 24 & 7 or not (value >> 21 & 7 or value >> 27 & 7)
    idc = field(r.CTR, "IDC").value(host.registers.get(r.CTR, 0))
    if coherent and not idc:
        return Refusal(
            "EINVAL", "it says that no data cache need be cleaned, which the host's caches need (CTR_EL0.IDC)"
        )
    return None


def _ccsidr(host: Description, selector: int, value: int, limit: int) -> Refusal | None:
    if value == limit:
        return None
    if host.release < (6, 3):
        return Refusal("EINVAL", "the host's kernel shows its own caches only (before 6.3)")
    least = field(r.CTR, "IminLine" if selector & 1 else "DminLine").value(host.registers.get(r.CTR, 0)) + 2
    line = (value & 7) + 4
    return Refusal("EINVAL", f"lines of {1 << line} bytes, the host's have {1 << least}") if line < least else None


def _firmware(reg: int, value: int, limit: int) -> Refusal | None:
    if reg == r.PSCI_VERSION:
        if value in PSCI and value <= limit:
            return None
        return Refusal("EINVAL", f"PSCI {value >> 16}.{value & 0xFFFF}; the host has {limit >> 16}.{limit & 0xFFFF}")
    if reg in (r.WORKAROUND_1, r.WORKAROUND_3):
        if value & ~_LEVEL or value > limit & _LEVEL:
            return Refusal("EINVAL", f"level {value:#x}, the host has {limit:#x}")
        return None
    if reg == r.WORKAROUND_2:
        level = _WA2_LEVEL.get(value & _LEVEL)
        enabled_wrong = value & _WA2_ENABLED and value & _LEVEL != 2
        if value & ~(_LEVEL | _WA2_ENABLED) or enabled_wrong or level is None or level > _WA2_LEVEL[limit & 3]:
            return Refusal("EINVAL", f"level {value:#x}, the host has {limit:#x}")
        return None
    if r.kind(reg) == r.FW_BITMAP:
        has = _VENDOR_2 if reg == r.VENDOR_HYP_BITMAP_2 else limit
        return Refusal("EINVAL", f"the host has no services {value & ~has:#x}") if value & ~has else None
    return None


def _vectors(value: int, limit: int) -> Refusal | None:
    """A guest has all lengths of the host's up to its own longest."""
    if value and value == limit & (1 << value.bit_length()) - 1:
        return None
    return Refusal("EINVAL", f"vector lengths {value:#x} of 128 bits, the host has {limit:#x}")


def _pstate(host: Description, value: int) -> Refusal | None:
    mode = value & 0x1F
    if mode in (0, 4, 5) or (mode == 0x10 and host.aarch32):
        return None
    return Refusal("EINVAL", f"mode {mode:#x}: the host's vCPUs have it not")
