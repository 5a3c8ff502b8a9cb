"""Check structures of the IA32/X64 Processor Error section (UEFI 2.10, N.2.4.2): what each kind of error says."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from cper.processor_check import BusOperation, ParticipationType, TransactionType
from cper.wire import Bits, OpenEnum, Reserved, Struct, Valid, ValidationBits, Word


class CacheOperation(OpenEnum):
    """What caused the error (Operation of a cache check)."""

    GENERIC = 0
    GENERIC_READ = 1
    GENERIC_WRITE = 2
    DATA_READ = 3
    DATA_WRITE = 4
    INSTRUCTION_FETCH = 5
    PREFETCH = 6
    EVICTION = 7
    SNOOP = 8


class BusAddressSpace(OpenEnum):
    """Address space of the transaction (Address Space)."""

    MEMORY = 0
    RESERVED = 1
    IO = 2
    OTHER = 3


class MsErrorType(OpenEnum):
    """Kind of micro-architecture specific error (Error Type)."""

    NONE = 0
    UNCLASSIFIED = 1
    MICROCODE_ROM_PARITY = 2
    EXTERNAL = 3
    FRC = 4
    INTERNAL_UNCLASSIFIED = 5


class Check(Struct):
    """What cache, TLB and bus checks share.  Not a structure by itself."""

    validation_bits: ClassVar[Word] = ValidationBits("H")
    word: ClassVar[Word] = Word("H")
    transaction_type: Annotated[TransactionType | None, Bits("word", 0, 2), Valid(0)] = None
    """What was transferred."""
    operation: Annotated[Any, Bits("word", 2, 6), Valid(1)] = None
    """What caused the error."""
    level: Annotated[int | None, Bits("word", 6, 9), Valid(2)] = None
    """Level of the cache or TLB, or of the bus in the hierarchy."""
    context_corrupt: Annotated[bool | None, Bits("word", 9, 10), Valid(3)] = None
    """The processor's context might be corrupt."""
    uncorrected: Annotated[bool | None, Bits("word", 10, 11), Valid(4)] = None
    """Else it was corrected."""
    precise_ip: Annotated[bool | None, Bits("word", 11, 12), Valid(5)] = None
    """The instruction pointer is that of the error."""
    restartable_ip: Annotated[bool | None, Bits("word", 12, 13), Valid(6)] = None
    """Execution can go on at the instruction pointer."""
    overflow: Annotated[bool | None, Bits("word", 13, 14), Valid(7)] = None
    """An error was lost."""


class CacheCheck(Check, size=8):
    """Cache check."""

    operation: Annotated[CacheOperation | None, Bits("word", 2, 6), Valid(1)] = None
    """What caused the error."""
    reserved: ClassVar[Word] = Reserved(4)


class TlbCheck(Check, size=8):
    """TLB check."""

    operation: Annotated[BusOperation | None, Bits("word", 2, 6), Valid(1)] = None
    """What caused the error."""
    reserved: ClassVar[Word] = Reserved(4)


class BusCheck(Check, size=8):
    """Bus check."""

    operation: Annotated[BusOperation | None, Bits("word", 2, 6), Valid(1)] = None
    """What caused the error."""
    participation_type: Annotated[ParticipationType | None, Bits("word", 14, 16), Valid(8)] = None
    """The processor's part in it."""
    high: ClassVar[Word] = Word("I")
    time_out: Annotated[bool | None, Bits("high", 0, 1), Valid(9)] = None
    """The request timed out."""
    address_space: Annotated[BusAddressSpace | None, Bits("high", 1, 3), Valid(10)] = None
    """Address space of the transaction."""


class MsCheck(Struct, size=8):
    """Micro-architecture specific check."""

    validation_bits: ClassVar[Word] = ValidationBits("H")
    word: ClassVar[Word] = Word("H")
    error_type: Annotated[MsErrorType | None, Bits("word", 0, 3), Valid(0)] = None
    """Kind of error."""
    context_corrupt: Annotated[bool | None, Bits("word", 3, 4), Valid(1)] = None
    """The processor's context might be corrupt."""
    uncorrected: Annotated[bool | None, Bits("word", 4, 5), Valid(2)] = None
    """Else it was corrected."""
    precise_ip: Annotated[bool | None, Bits("word", 5, 6), Valid(3)] = None
    """The instruction pointer is that of the error."""
    restartable_ip: Annotated[bool | None, Bits("word", 6, 7), Valid(4)] = None
    """Execution can go on at the instruction pointer."""
    overflow: Annotated[bool | None, Bits("word", 7, 8), Valid(5)] = None
    """An error was lost."""
    reserved: ClassVar[Word] = Reserved(4)
