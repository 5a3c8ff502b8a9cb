"""What the media events of a CXL memory device share (CXL 3.1, 8.2.9.2.1.1 and 8.2.9.2.1.2)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from cper.cxl_component import CxlEventHeader
from cper.wire import U8, Bits, OpenEnum, OpenFlags, Struct, Valid, ValidationBits, Word, u8


class MemoryEventDescriptor(OpenFlags):
    """What happened (Memory Event Descriptor)."""

    UNCORRECTABLE = 1 << 0
    THRESHOLD = 1 << 1
    POISON_LIST_OVERFLOW = 1 << 2


class MediaTransactionType(OpenEnum):
    """What was going on (Transaction Type)."""

    UNKNOWN = 0
    HOST_READ = 1
    HOST_WRITE = 2
    HOST_SCAN_MEDIA = 3
    HOST_INJECT_POISON = 4
    INTERNAL_MEDIA_SCRUB = 5
    INTERNAL_MEDIA_MANAGEMENT = 6
    INTERNAL_MEDIA_ERROR_CHECK_SCRUB = 7
    MEDIA_INITIALIZATION = 8


class CorrectedErrorThreshold(OpenFlags):
    """Which threshold was passed (Advanced Programmable Corrected Memory Error Threshold Event Flags)."""

    MULTIPLE_MEDIA_COMPONENTS = 1 << 0
    EXCEEDED = 1 << 1


class MemoryEventSubType(OpenEnum):
    """Kind of data path error (Memory Event Sub-Type)."""

    NOT_REPORTED = 0
    INTERNAL_DATAPATH_ERROR = 1
    MEDIA_LINK_COMMAND_TRAINING_ERROR = 2
    MEDIA_LINK_CONTROL_TRAINING_ERROR = 3
    MEDIA_LINK_DATA_TRAINING_ERROR = 4
    MEDIA_LINK_CRC_ERROR = 5


class MediaEvent(Struct):
    """What both begin with.  Not a structure by itself."""

    header: CxlEventHeader
    """What every record begins with."""
    dpa: ClassVar[Word] = Word("Q")
    physical_address: Annotated[int, Bits("dpa", 6, 64, in_place=True)] = 0
    """Device physical address: a multiple of 64."""
    volatile: Annotated[bool, Bits("dpa", 0, 1)] = False
    """The address is in volatile memory."""
    not_repairable: Annotated[bool, Bits("dpa", 1, 2)] = False
    """The memory there cannot be repaired."""
    descriptor: Annotated[MemoryEventDescriptor, u8] = MemoryEventDescriptor(0)
    """What happened."""
    event_type: Annotated[Any, u8] = 0
    """What kind of error."""
    transaction_type: Annotated[MediaTransactionType, u8] = MediaTransactionType.UNKNOWN
    """What was going on."""
    validity_flags: ClassVar[Word] = ValidationBits("H")
    channel: Annotated[U8 | None, Valid(0)] = None
    """Channel: an interface that can be accessed on its own."""
    rank: Annotated[U8 | None, Valid(1)] = None
    """Rank: devices that make up one access."""
