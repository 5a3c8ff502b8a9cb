"""CXL Component Events section (UEFI 2.10, N.2.14): its header, and that of event records (CXL 3.1, 8.2.9.2.1).

A section of this kind holds one event record, without the UUID that stands before it in a device's event log: that is
the section type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

import construct as c

from cper.framed import Beginning, FramedSection, Head, Remainder, Upto
from cper.wire import U8, U16, U32, U64, Bits, OpenEnum, Reserved, Struct, Valid, ValidationBits, Word


class CxlComponentDeviceId(Struct, size=12):
    """Which device (Device ID)."""

    vendor_id: U16
    device_id: U16
    function: U8 = 0
    device: U8 = 0
    bus: U8 = 0
    segment: U16 = 0
    slot: ClassVar[Word] = Word("H")
    slot_number: Annotated[int, Bits("slot", 3, 16)] = 0
    reserved: ClassVar[Word] = Reserved(1)


class CxlComponentHead(Struct, size=32):
    """What precedes the event record of a CXL Component Events section."""

    length: U32
    """Bytes, of the whole section."""
    validation_bits: ClassVar[Word] = ValidationBits("Q")
    event_log_valid: Annotated[bool, Bits("validation_bits", 2, 3)] = False
    """Whether the event record is meaningful."""
    device_id: Annotated[CxlComponentDeviceId | None, Valid(0)] = None
    """Which device."""
    serial_number: Annotated[U64 | None, Valid(1)] = None
    """Device Serial Number: lower dword first on the wire."""


class CxlEventSeverity(OpenEnum):
    """Event log that the record belongs to (Event Record Severity)."""

    INFORMATIONAL = 0
    WARNING = 1
    FAILURE = 2
    FATAL = 3


class CxlEventHeader(Struct, size=32):
    """What every event record begins with, behind its UUID (Common Event Record)."""

    record_length: U8 = 128
    """Bytes of the record, its UUID included."""
    flags: ClassVar[Word] = Word("B")
    severity: Annotated[CxlEventSeverity, Bits("flags", 0, 2)] = CxlEventSeverity.INFORMATIONAL
    """Event log that it belongs to."""
    permanent: Annotated[bool, Bits("flags", 2, 3)] = False
    """Permanent Condition."""
    maintenance_needed: Annotated[bool, Bits("flags", 3, 4)] = False
    performance_degraded: Annotated[bool, Bits("flags", 4, 5)] = False
    hardware_replacement_needed: Annotated[bool, Bits("flags", 5, 6)] = False
    maintenance_operation_subclass_valid: Annotated[bool, Bits("flags", 6, 7)] = False
    ld_id_valid: Annotated[bool, Bits("flags", 7, 8)] = False
    flags_high: ClassVar[Word] = Word("H")
    head_id_valid: Annotated[bool, Bits("flags_high", 0, 1)] = False
    handle: U16 = 0
    """Event Record Handle."""
    related_handle: U16 = 0
    """Of a related record; 0: none."""
    timestamp: U64 = 0
    """Nanoseconds since the Unix epoch; 0: not known."""
    maintenance_operation_class: U8 = 0
    maintenance_operation_subclass: U8 = 0
    ld_id: U16 = 0
    """Logical device that it originates from."""
    head_id: U8 = 0
    """Head of the device that it originates from."""
    reserved: ClassVar[Word] = Reserved(11)


E = TypeVar("E", bound=Struct)


def frame(event: type[Struct]) -> c.Construct:
    """The body, its event record read so where it is valid and long enough."""
    record = Beginning(event, CxlComponentHead, within="length", valid="event_log_valid")
    return c.Struct(
        "head" / Head(CxlComponentHead, "length"),
        "event" / record,
        "event_data" / Remainder(record),
        "trailing" / Upto(),
    )


@dataclass(frozen=True)
class CxlComponent(FramedSection[CxlComponentHead], Generic[E]):
    """Base of the sections with an event record."""

    event: tuple[E, ...] = ()
    """The record."""
    event_data: bytes = b""
    """Its bytes that are not decoded."""
    trailing: bytes = b""
    """Bytes behind what the length covers."""

    @classmethod
    def of(cls, event: E, event_data: bytes = b"", **fields: Any) -> Self:
        """The section with this record; ``fields`` are those of its head."""
        length = CxlComponentHead.SIZE + event.SIZE + len(event_data)
        return cls(CxlComponentHead(**({"length": length, "event_log_valid": True} | fields)), (event,), event_data)
