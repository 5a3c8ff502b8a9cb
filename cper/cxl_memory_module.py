"""CXL Memory Module event section (UEFI 2.10, N.2.14; CXL 3.1, 8.2.9.2.1.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from cper.cxl_component import CxlComponent, CxlEventHeader, frame
from cper.wire import (
    U8,
    U32,
    Bits,
    Cell,
    OpenEnum,
    OpenFlags,
    Reserved,
    Struct,
    Valid,
    ValidationBits,
    Word,
    blob,
    u8,
)


class MemoryModuleEventType(OpenEnum):
    """What kind of event (Device Event Type)."""

    HEALTH_STATUS_CHANGE = 0
    MEDIA_STATUS_CHANGE = 1
    LIFE_USED_CHANGE = 2
    TEMPERATURE_CHANGE = 3
    DATA_PATH_ERROR = 4
    LSA_ERROR = 5
    """Of the label storage area."""
    UNRECOVERABLE_SIDEBAND_BUS_ERROR = 6
    MEMORY_MEDIA_FRU_ERROR = 7
    POWER_MANAGEMENT_FAULT = 8


class MemoryModuleEventSubType(OpenEnum):
    """Kind of that event (Device Event Sub-Type)."""

    NOT_REPORTED = 0
    INVALID_CONFIGURATION_DATA = 1
    UNSUPPORTED_CONFIGURATION_DATA = 2
    UNSUPPORTED_MEMORY_MEDIA_FRU = 3


class HealthStatus(OpenFlags):
    """Health of the device (Health Status)."""

    MAINTENANCE_NEEDED = 1 << 0
    PERFORMANCE_DEGRADED = 1 << 1
    HARDWARE_REPLACEMENT_NEEDED = 1 << 2
    MEMORY_CAPACITY_DEGRADED = 1 << 3


class MediaStatus(OpenEnum):
    """Health of the media (Media Status)."""

    NORMAL = 0
    NOT_READY = 1
    WRITE_PERSISTENCY_LOST = 2
    ALL_DATA_LOST = 3
    WRITE_PERSISTENCY_LOSS_ON_POWER_LOSS = 4
    WRITE_PERSISTENCY_LOSS_ON_SHUTDOWN = 5
    WRITE_PERSISTENCY_LOSS_IMMINENT = 6
    ALL_DATA_LOSS_ON_POWER_LOSS = 7
    ALL_DATA_LOSS_ON_SHUTDOWN = 8
    ALL_DATA_LOSS_IMMINENT = 9


class AdditionalStatus(OpenEnum):
    """How far a value is from what is normal (Additional Status)."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2


class MemoryModuleEvent(Struct, size=112):
    """Memory Module Event Record, without its UUID."""

    header: CxlEventHeader
    """What every record begins with."""
    event_type: Annotated[MemoryModuleEventType, u8] = MemoryModuleEventType.HEALTH_STATUS_CHANGE
    """What kind of event."""
    health_status: Annotated[HealthStatus, u8] = HealthStatus(0)
    """Health of the device."""
    media_status: Annotated[MediaStatus, u8] = MediaStatus.NORMAL
    """Health of the media."""
    additional_status: ClassVar[Word] = Word("B")
    life_used_status: Annotated[AdditionalStatus, Bits("additional_status", 0, 2)] = AdditionalStatus.NORMAL
    temperature_status: Annotated[AdditionalStatus, Bits("additional_status", 2, 4)] = AdditionalStatus.NORMAL
    corrected_volatile_warning: Annotated[bool, Bits("additional_status", 4, 5)] = False
    """The count of corrected volatile errors has passed its threshold."""
    corrected_persistent_warning: Annotated[bool, Bits("additional_status", 5, 6)] = False
    """The count of corrected persistent errors has passed its threshold."""
    life_used: U8 = 0
    """Percent."""
    device_temperature: Annotated[int, Cell("h"), Field(ge=-(1 << 15), le=(1 << 15) - 1, strict=True)] = 0
    """Degrees Celsius."""
    dirty_shutdown_count: U32 = 0
    corrected_volatile_error_count: U32 = 0
    corrected_persistent_error_count: U32 = 0
    validity_flags: ClassVar[Word] = ValidationBits("H")
    component_id_pldm: Annotated[bool, Bits("validity_flags", 1, 2)] = False
    """The component identifier has PLDM format."""
    component_id: Annotated[bytes | None, blob(16), Valid(0)] = None
    """Component Identifier."""
    sub_type: Annotated[MemoryModuleEventSubType, u8] = MemoryModuleEventSubType.NOT_REPORTED
    """Kind of that event."""
    reserved: ClassVar[Word] = Reserved(42)


@dataclass(frozen=True)
class CxlMemoryModule(CxlComponent[MemoryModuleEvent], guid="fe927475-dd59-4339-a586-79bab113b774"):
    """An event of a CXL memory module."""

    FRAME = frame(MemoryModuleEvent)
