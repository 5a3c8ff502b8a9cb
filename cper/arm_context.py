"""Register contexts of the ARM Processor Error section (UEFI 2.10, N.2.4.4, ARM Processor Context Information)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cper.register_context import RegisterContext
from cper.wire import U16, U32, U64, Bits, OpenEnum, Struct, Word, blob, u16


class ArmRegisterContextType(OpenEnum):
    """What the register array holds (Register Context Type)."""

    AARCH32_GPRS = 0
    AARCH32_EL1 = 1
    AARCH32_EL2 = 2
    AARCH32_SECURE = 3
    AARCH64_GPRS = 4
    AARCH64_EL1 = 5
    AARCH64_EL2 = 6
    AARCH64_EL3 = 7
    MISC_SYSTEM_REGISTERS = 8
    TTBR_128_BIT = 9
    """UEFI 2.11, FEAT_D128."""


class ArmContextHead(Struct, size=8):
    """What precedes a register array."""

    version: U16 = 0
    register_context_type: Annotated[ArmRegisterContextType, u16]
    """What the array holds."""
    register_array_size: U32
    """Bytes of the array."""


class AArch32Registers(Struct, size=64):
    """General purpose registers in AArch32 (Type 0)."""

    r0: U32
    r1: U32
    r2: U32
    r3: U32
    r4: U32
    r5: U32
    r6: U32
    r7: U32
    r8: U32
    r9: U32
    r10: U32
    r11: U32
    r12: U32
    r13_sp: U32
    r14_lr: U32
    r15_pc: U32


class AArch32El1Registers(Struct, size=96):
    """Context of EL1 in AArch32 (Type 1)."""

    dfar: U32
    dfsr: U32
    ifar: U32
    isr: U32
    mair0: U32
    mair1: U32
    midr: U32
    mpidr: U32
    nmrr: U32
    prrr: U32
    sctlr_ns: U32
    spsr: U32
    spsr_abt: U32
    spsr_fiq: U32
    spsr_irq: U32
    spsr_svc: U32
    spsr_und: U32
    tpidrprw: U32
    tpidruro: U32
    tpidrurw: U32
    ttbcr: U32
    ttbr0: U32
    ttbr1: U32
    dacr: U32


class AArch32El2Registers(Struct, size=64):
    """Context of EL2 in AArch32 (Type 2)."""

    elr_hyp: U32
    hamair0: U32
    hamair1: U32
    hcr: U32
    hcr2: U32
    hdfar: U32
    hifar: U32
    hpfar: U32
    hsr: U32
    htcr: U32
    htpidr: U32
    httbr: U32
    spsr_hyp: U32
    vtcr: U32
    vttbr: U32
    dacr32_el2: U32


class AArch32SecureRegisters(Struct, size=8):
    """Secure context in AArch32 (Type 3)."""

    sctlr_s: U32
    spsr_mon: U32


class AArch64Registers(Struct, size=256):
    """General purpose registers in AArch64 (Type 4)."""

    x0: U64
    x1: U64
    x2: U64
    x3: U64
    x4: U64
    x5: U64
    x6: U64
    x7: U64
    x8: U64
    x9: U64
    x10: U64
    x11: U64
    x12: U64
    x13: U64
    x14: U64
    x15: U64
    x16: U64
    x17: U64
    x18: U64
    x19: U64
    x20: U64
    x21: U64
    x22: U64
    x23: U64
    x24: U64
    x25: U64
    x26: U64
    x27: U64
    x28: U64
    x29: U64
    x30: U64
    sp: U64


class AArch64El1Registers(Struct, size=136):
    """Context of EL1 in AArch64 (Type 5)."""

    elr_el1: U64
    esr_el1: U64
    far_el1: U64
    isr_el1: U64
    mair_el1: U64
    midr_el1: U64
    mpidr_el1: U64
    sctlr_el1: U64
    sp_el0: U64
    sp_el1: U64
    spsr_el1: U64
    tcr_el1: U64
    tpidr_el0: U64
    tpidr_el1: U64
    tpidrro_el0: U64
    ttbr0_el1: U64
    ttbr1_el1: U64


class AArch64El2Registers(Struct, size=120):
    """Context of EL2 in AArch64 (Type 6)."""

    elr_el2: U64
    esr_el2: U64
    far_el2: U64
    hacr_el2: U64
    hcr_el2: U64
    hpfar_el2: U64
    mair_el2: U64
    sctlr_el2: U64
    sp_el2: U64
    spsr_el2: U64
    tcr_el2: U64
    tpidr_el2: U64
    ttbr0_el2: U64
    vtcr_el2: U64
    vttbr_el2: U64


class AArch64El3Registers(Struct, size=80):
    """Context of EL3 in AArch64 (Type 7)."""

    elr_el3: U64
    esr_el3: U64
    far_el3: U64
    mair_el3: U64
    sctlr_el3: U64
    sp_el3: U64
    spsr_el3: U64
    tcr_el3: U64
    tpidr_el3: U64
    ttbr0_el3: U64


class ArmSystemRegister(Struct, size=10):
    """A system register by its MRS encoding (Type 8); op0 is 2 + o0."""

    encoding: ClassVar[Word] = Word("H")
    op2: Annotated[int, Bits("encoding", 0, 3)]
    crm: Annotated[int, Bits("encoding", 3, 7)]
    crn: Annotated[int, Bits("encoding", 7, 11)]
    op1: Annotated[int, Bits("encoding", 11, 14)]
    o0: Annotated[int, Bits("encoding", 14, 15)]
    value: U64


class Ttbr128Registers(Struct, size=96):
    """Translation table base registers of 128 bits, least significant byte first (UEFI 2.11, Type 9).

    One that is not valid has all bits set.
    """

    ttbr0_el1: Annotated[bytes, blob(16)]
    ttbr0_el2: Annotated[bytes, blob(16)]
    ttbr0_el3: Annotated[bytes, blob(16)]
    ttbr1_el1: Annotated[bytes, blob(16)]
    ttbr1_el2: Annotated[bytes, blob(16)]
    vttbr_el2: Annotated[bytes, blob(16)]


@dataclass(frozen=True)
class ArmContext(RegisterContext[ArmContextHead]):
    """A register context of an ARM processor."""

    HEAD = ArmContextHead
    REGISTERS: ClassVar[Mapping[int, type[Struct]]] = {
        ArmRegisterContextType.AARCH32_GPRS: AArch32Registers,
        ArmRegisterContextType.AARCH32_EL1: AArch32El1Registers,
        ArmRegisterContextType.AARCH32_EL2: AArch32El2Registers,
        ArmRegisterContextType.AARCH32_SECURE: AArch32SecureRegisters,
        ArmRegisterContextType.AARCH64_GPRS: AArch64Registers,
        ArmRegisterContextType.AARCH64_EL1: AArch64El1Registers,
        ArmRegisterContextType.AARCH64_EL2: AArch64El2Registers,
        ArmRegisterContextType.AARCH64_EL3: AArch64El3Registers,
        ArmRegisterContextType.MISC_SYSTEM_REGISTERS: ArmSystemRegister,
        ArmRegisterContextType.TTBR_128_BIT: Ttbr128Registers,
    }
    LISTS = frozenset({ArmRegisterContextType.MISC_SYSTEM_REGISTERS})
