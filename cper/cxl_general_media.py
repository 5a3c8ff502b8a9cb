"""CXL General Media event section (UEFI 2.10, N.2.14; CXL 3.1, 8.2.9.2.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cper.cxl_component import CxlComponent, frame
from cper.cxl_media import CorrectedErrorThreshold, MediaEvent, MemoryEventSubType
from cper.wire import U24, Bits, OpenEnum, Reserved, Valid, Word, blob, u8


class GeneralMediaEventType(OpenEnum):
    """What kind of error (Memory Event Type)."""

    ECC_ERROR = 0
    INVALID_ADDRESS = 1
    DATA_PATH_ERROR = 2
    TE_STATE_VIOLATION = 3
    SCRUB_MEDIA_ECC_ERROR = 4
    CME_COUNTER_EXPIRATION = 5
    """Of the advanced programmable corrected memory error counter."""
    CKID_VIOLATION = 6


class GeneralMediaEvent(MediaEvent, size=112):
    """General Media Event Record, without its UUID."""

    event_type: Annotated[GeneralMediaEventType, u8] = GeneralMediaEventType.ECC_ERROR
    """What kind of error."""
    component_id_pldm: Annotated[bool, Bits("validity_flags", 4, 5)] = False
    """The component identifier has PLDM format."""
    device: Annotated[U24 | None, Valid(2)] = None
    """Devices of the rank, one bit each."""
    component_id: Annotated[bytes | None, blob(16), Valid(3)] = None
    """Component Identifier."""
    threshold_flags: Annotated[CorrectedErrorThreshold, u8] = CorrectedErrorThreshold(0)
    """Which threshold was passed."""
    corrected_error_count: U24 = 0
    """Corrected Memory Error Count at Event."""
    sub_type: Annotated[MemoryEventSubType, u8] = MemoryEventSubType.NOT_REPORTED
    """Kind of data path error."""
    reserved: ClassVar[Word] = Reserved(41)


@dataclass(frozen=True)
class CxlGeneralMedia(CxlComponent[GeneralMediaEvent], guid="fbcd0a77-c260-417f-85a9-088b1621eba6"):
    """An event of the memory of a CXL device."""

    FRAME = frame(GeneralMediaEvent)
