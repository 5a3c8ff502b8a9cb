"""Register contexts of the IA32/X64 Processor Error section (UEFI 2.10, N.2.4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cper.register_context import RegisterContext
from cper.wire import U16, U32, U64, OpenEnum, Reserved, Struct, Word, blob, u16


class RegisterContextType(OpenEnum):
    """What the register array holds (Register Context Type)."""

    UNCLASSIFIED = 0
    MSR = 1
    IA32 = 2
    X64 = 3
    FXSAVE = 4
    DEBUG_IA32 = 5
    DEBUG_X64 = 6
    MEMORY_MAPPED = 7


class ContextHead(Struct, size=16):
    """What precedes a register array."""

    register_context_type: Annotated[RegisterContextType, u16]
    """What the array holds."""
    register_array_size: U16
    """Bytes of the array."""
    msr_address: U32 = 0
    """First of the machine specific registers."""
    mm_register_address: U64 = 0
    """First of the memory mapped registers."""


class MsrValue(Struct, size=8):
    """A machine specific register; the first is that of msr_address."""

    value: U64


class Ia32Registers(Struct, size=92):
    """Registers of a processor in 32-bit mode."""

    eax: U32
    ebx: U32
    ecx: U32
    edx: U32
    esi: U32
    edi: U32
    ebp: U32
    esp: U32
    cs: U16
    ds: U16
    ss: U16
    es: U16
    fs: U16
    gs: U16
    eflags: U32
    eip: U32
    cr0: U32
    cr1: U32
    cr2: U32
    cr3: U32
    cr4: U32
    gdtr: Annotated[bytes, blob(8)]
    idtr: Annotated[bytes, blob(8)]
    ldtr: U16
    tr: U16


class X64Registers(Struct, size=244):
    """Registers of a processor in 64-bit mode.  edk2's structure, without CR8, is kept as bytes."""

    rax: U64
    rbx: U64
    rcx: U64
    rdx: U64
    rsi: U64
    rdi: U64
    rbp: U64
    rsp: U64
    r8: U64
    r9: U64
    r10: U64
    r11: U64
    r12: U64
    r13: U64
    r14: U64
    r15: U64
    cs: U16
    ds: U16
    ss: U16
    es: U16
    fs: U16
    gs: U16
    reserved: ClassVar[Word] = Reserved(4)
    rflags: U64
    rip: U64
    cr0: U64
    cr1: U64
    cr2: U64
    cr3: U64
    cr4: U64
    cr8: U64
    gdtr: Annotated[bytes, blob(16)]
    idtr: Annotated[bytes, blob(16)]
    ldtr: U16
    tr: U16


@dataclass(frozen=True)
class ProcessorContext(RegisterContext[ContextHead]):
    """A register context of an IA32 or X64 processor: MSRs and the registers of both modes are decoded."""

    HEAD = ContextHead
    REGISTERS: ClassVar[Mapping[int, type[Struct]]] = {
        RegisterContextType.MSR: MsrValue,
        RegisterContextType.IA32: Ia32Registers,
        RegisterContextType.X64: X64Registers,
    }
    LISTS = frozenset({RegisterContextType.MSR})
