"""Fixed parts of the ARM Processor Error section (UEFI 2.10, N.2.4.4): its header, and one error information.

The section as a whole, with its contexts and vendor bytes, is kept as bytes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.wire import U8, U16, U32, U64, OpenFlags, Reserved, Struct, Valid, ValidationBits, Word, u8


class ArmErrorType(OpenFlags):
    """What failed (Type of an error information): a bit mask since UEFI 2.9A."""

    CACHE = 1 << 1
    TLB = 1 << 2
    BUS = 1 << 3
    MICRO_ARCHITECTURE = 1 << 4


class ArmProcessorHeader(Struct, size=40):
    """What precedes the error informations of an ARM Processor Error section."""

    validation_bits: ClassVar[Word] = ValidationBits("I")
    error_information_count: U16 = 0
    context_information_count: U16 = 0
    section_length: U32 = 0
    """Bytes, of the whole section."""
    affinity_level: Annotated[U8 | None, Valid(1)] = None
    reserved: ClassVar = Reserved(3)
    mpidr: Annotated[U64 | None, Valid(0)] = None
    """MPIDR_EL1 of the processor."""
    midr: U64 = 0
    """MIDR_EL1 of the processor."""
    running_state: Annotated[U32 | None, Valid(2)] = None
    """Bit 0: the processor runs."""
    psci_state: U32 = 0
    """PSCI state, where it does not run."""


class ArmErrorInformation(Struct, size=32):
    """One error of an ARM processor."""

    version: U8 = 0
    length: U8 = 32
    """Bytes."""
    validation_bits: ClassVar[Word] = ValidationBits("H")
    type: Annotated[ArmErrorType, u8] = ArmErrorType(0)
    multiple_error: Annotated[U16 | None, Valid(0)] = None
    """0: one error, 1: several, else how many."""
    flags: Annotated[U8 | None, Valid(1)] = None
    error_information: Annotated[U64 | None, Valid(2)] = None
    virtual_fault_address: Annotated[U64 | None, Valid(3)] = None
    physical_fault_address: Annotated[U64 | None, Valid(4)] = None
