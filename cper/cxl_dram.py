"""CXL DRAM event section (UEFI 2.10, N.2.14; CXL 3.1, 8.2.9.2.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cper.cxl_component import CxlComponent, frame
from cper.cxl_media import CorrectedErrorThreshold, MediaEvent, MemoryEventSubType
from cper.wire import U8, U16, U24, Bits, OpenEnum, Reserved, Valid, Word, array, blob, u8


class DramEventType(OpenEnum):
    """What kind of error (Memory Event Type)."""

    ECC_ERROR = 0
    SCRUB_MEDIA_ECC_ERROR = 1
    INVALID_ADDRESS = 2
    DATA_PATH_ERROR = 3
    TE_STATE_VIOLATION = 4
    CME_COUNTER_EXPIRATION = 5
    """Of the advanced programmable corrected memory error counter."""
    CKID_VIOLATION = 6


class DramEvent(MediaEvent, size=112):
    """DRAM Event Record, without its UUID."""

    event_type: Annotated[DramEventType, u8] = DramEventType.ECC_ERROR
    """What kind of error."""
    component_id_pldm: Annotated[bool, Bits("validity_flags", 9, 10)] = False
    """The component identifier has PLDM format."""
    nibble_mask: Annotated[U24 | None, Valid(2)] = None
    """Nibbles in error on the memory bus."""
    bank_group: Annotated[U8 | None, Valid(3)] = None
    bank: Annotated[U8 | None, Valid(4)] = None
    row: Annotated[U24 | None, Valid(5)] = None
    column: Annotated[U16 | None, Valid(6)] = None
    correction_mask: Annotated[tuple[int, ...] | None, array("Q", 4), Valid(7)] = None
    """Bits in error within a burst."""
    component_id: Annotated[bytes | None, blob(16), Valid(8)] = None
    """Component Identifier."""
    sub_channel: Annotated[U8 | None, Valid(10)] = None
    """Sub-channel of the channel."""
    threshold_flags: Annotated[CorrectedErrorThreshold, u8] = CorrectedErrorThreshold(0)
    """Which threshold was passed."""
    corrected_volatile_error_count: U24 = 0
    """Corrected Volatile Memory Error Count at Event."""
    sub_type: Annotated[MemoryEventSubType, u8] = MemoryEventSubType.NOT_REPORTED
    """Kind of data path error."""
    reserved: ClassVar[Word] = Reserved(1)


@dataclass(frozen=True)
class CxlDram(CxlComponent[DramEvent], guid="601dcbb3-9c06-4eab-b8af-4e9bfb5c9624"):
    """An event of the DRAM of a CXL device."""

    FRAME = frame(DramEvent)
