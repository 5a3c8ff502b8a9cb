"""Processor Generic Error section (UEFI 2.10, N.2.4.1)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.section import Section
from cper.wire import U8, U64, OpenEnum, OpenFlags, Reserved, Valid, ValidationBits, Word, text, u8


class ProcessorType(OpenEnum):
    """Architecture of the processor (Processor Type)."""

    IA32_X64 = 0
    IA64 = 1
    ARM = 2


class ProcessorIsa(OpenEnum):
    """Instruction set in which it ran when the error occurred (Processor ISA)."""

    IA32 = 0
    IA64 = 1
    X64 = 2
    ARM_A32_T32 = 3
    ARM_A64 = 4


class ProcessorErrorType(OpenFlags):
    """What failed (Processor Error Type); nothing set: unknown."""

    CACHE = 1 << 0
    TLB = 1 << 1
    BUS = 1 << 2
    MICRO_ARCHITECTURE = 1 << 3


class ProcessorOperation(OpenEnum):
    """What it did (Operation)."""

    UNKNOWN = 0
    DATA_READ = 1
    DATA_WRITE = 2
    INSTRUCTION_EXECUTION = 3


class ProcessorErrorFlags(OpenFlags):
    """What the error left behind (Flags)."""

    RESTARTABLE = 1 << 0
    PRECISE_IP = 1 << 1
    OVERFLOW = 1 << 2
    CORRECTED = 1 << 3


class ProcessorGeneric(Section, size=192, guid="9876ccad-47b4-4bdb-b65e-16f193c4f3db"):
    """An error of a processor of any architecture."""

    validation_bits: ClassVar[Word] = ValidationBits("Q")
    processor_type: Annotated[ProcessorType | None, u8, Valid(0)] = None
    """Architecture."""
    processor_isa: Annotated[ProcessorIsa | None, u8, Valid(1)] = None
    """Instruction set."""
    error_type: Annotated[ProcessorErrorType | None, u8, Valid(2)] = None
    """What failed."""
    operation: Annotated[ProcessorOperation | None, u8, Valid(3)] = None
    """What the processor did."""
    flags: Annotated[ProcessorErrorFlags | None, u8, Valid(4)] = None
    """What the error left behind."""
    level: Annotated[U8 | None, Valid(5)] = None
    """Level of the structure that failed; 0 is the lowest."""
    reserved: ClassVar[Word] = Reserved(2)
    cpu_version_info: Annotated[U64 | None, Valid(6)] = None
    """x86: EAX of CPUID leaf 1; ARM: MIDR_EL1."""
    cpu_brand_string: Annotated[str | None, text(128), Valid(7)] = None
    """What the processor calls itself; on ARM as the platform defines it."""
    processor_id: Annotated[U64 | None, Valid(8)] = None
    """x86: local APIC id; ARM: MPIDR_EL1."""
    target_address: Annotated[U64 | None, Valid(9)] = None
    """Address that the error belongs to."""
    requestor_id: Annotated[U64 | None, Valid(10)] = None
    """Requestor Identifier."""
    responder_id: Annotated[U64 | None, Valid(11)] = None
    """Responder Identifier."""
    instruction_ip: Annotated[U64 | None, Valid(12)] = None
    """Instruction pointer when the error occurred."""
