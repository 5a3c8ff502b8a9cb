"""Error Information of the ARM Processor Error section (UEFI 2.10, N.2.4.4): cache, TLB and bus errors."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from cper.processor_check import BusOperation, ParticipationType, TransactionType
from cper.wire import Bits, OpenEnum, Reserved, Struct, Valid, ValidationBits, Word


class ArmCacheOperation(OpenEnum):
    """What caused the error (Operation of a cache error)."""

    GENERIC = 0
    GENERIC_READ = 1
    GENERIC_WRITE = 2
    DATA_READ = 3
    DATA_WRITE = 4
    INSTRUCTION_FETCH = 5
    PREFETCH = 6
    EVICTION = 7
    SNOOPING = 8
    """This processor snooped another's cache."""
    SNOOPED = 9
    """Another processor or device snooped this one's cache."""
    MANAGEMENT = 10


class ArmTlbOperation(OpenEnum):
    """What caused the error (Operation of a TLB error)."""

    GENERIC = 0
    GENERIC_READ = 1
    GENERIC_WRITE = 2
    DATA_READ = 3
    DATA_WRITE = 4
    INSTRUCTION_FETCH = 5
    PREFETCH = 6
    LOCAL_MANAGEMENT = 7
    EXTERNAL_MANAGEMENT = 8


class ArmAddressSpace(OpenEnum):
    """What was accessed (Address Space)."""

    EXTERNAL_MEMORY = 0
    INTERNAL_MEMORY = 1
    DEVICE_MEMORY = 3


class ArmAccessMode(OpenEnum):
    """Which bus request it was (Access Mode)."""

    SECURE = 0
    NORMAL = 1


class ArmError(Struct):
    """What cache, TLB and bus errors share.  Not a structure by itself."""

    validation_bits: ClassVar[Word] = ValidationBits("H")
    word: ClassVar[Word] = Word("H")
    transaction_type: Annotated[TransactionType | None, Bits("word", 0, 2), Valid(0)] = None
    """What was transferred."""
    operation: Annotated[Any, Bits("word", 2, 6), Valid(1)] = None
    """What caused the error."""
    level: Annotated[int | None, Bits("word", 6, 9), Valid(2)] = None
    """Level of the cache or TLB; of a bus error the affinity level."""
    context_corrupt: Annotated[bool | None, Bits("word", 9, 10), Valid(3)] = None
    """The processor's context might be corrupt."""
    corrected: Annotated[bool | None, Bits("word", 10, 11), Valid(4)] = None
    """Else it was not."""
    precise_pc: Annotated[bool | None, Bits("word", 11, 12), Valid(5)] = None
    """The program counter is that of the error."""
    restartable_pc: Annotated[bool | None, Bits("word", 12, 13), Valid(6)] = None
    """Execution can go on at the program counter."""


class ArmCacheError(ArmError, size=8):
    """Cache error."""

    operation: Annotated[ArmCacheOperation | None, Bits("word", 2, 6), Valid(1)] = None
    """What caused the error."""
    reserved: ClassVar[Word] = Reserved(4)


class ArmTlbError(ArmError, size=8):
    """TLB error."""

    operation: Annotated[ArmTlbOperation | None, Bits("word", 2, 6), Valid(1)] = None
    """What caused the error."""
    reserved: ClassVar[Word] = Reserved(4)


class ArmBusError(ArmError, size=8):
    """Bus error."""

    operation: Annotated[BusOperation | None, Bits("word", 2, 6), Valid(1)] = None
    """What caused the error."""
    participation_type: Annotated[ParticipationType | None, Bits("word", 13, 15), Valid(7)] = None
    """The processor's part in it."""
    time_out: Annotated[bool | None, Bits("word", 15, 16), Valid(8)] = None
    """The request timed out."""
    high: ClassVar[Word] = Word("I")
    address_space: Annotated[ArmAddressSpace | None, Bits("high", 0, 2), Valid(9)] = None
    """What was accessed."""
    memory_attributes: Annotated[int | None, Bits("high", 2, 11), Valid(10)] = None
    """Memory Access Attributes, as the Arm ARM has them."""
    access_mode: Annotated[ArmAccessMode | None, Bits("high", 11, 12), Valid(11)] = None
    """Secure or not."""
