"""Record header and section descriptor (UEFI 2.10, N.2.1, Table N.1, and N.2.2, Table N.3)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self
from uuid import UUID

from cper.common import SectionFlags, Severity, Timestamp
from cper.guids import NOTIFICATION_TYPES
from cper.wire import U16, U32, U64, Guid, OpenFlags, Reserved, Struct, Valid, ValidationBits, Word, guid, text, u32

NIL = UUID(int=0)


class RecordFlags(OpenFlags):
    """Flags of a record (N.2.1)."""

    RECOVERED = 1 << 0
    PREVIOUS_ERROR = 1 << 1
    SIMULATED = 1 << 2


class RecordHeader(Struct, size=128):
    """Record header (N.2.1, Table N.1)."""

    signature_start: Annotated[Literal[0x52455043], u32] = 0x52455043
    """ASCII ``CPER``."""
    revision: U16 = 0x0101
    """High byte major, low byte minor."""
    signature_end: Annotated[Literal[0xFFFFFFFF], u32] = 0xFFFFFFFF
    section_count: U16
    """Section descriptors that follow."""
    severity: Annotated[Severity, u32]
    """The worst of the sections'."""
    validation_bits: ClassVar[Word] = ValidationBits("I")
    record_length: U32
    """Bytes of the record: header, descriptors, bodies."""
    timestamp: Annotated[Timestamp | None, Valid(1)] = None
    platform_id: Annotated[UUID | None, guid, Valid(0)] = None
    partition_id: Annotated[UUID | None, guid, Valid(2)] = None
    creator_id: Guid = NIL
    notification_type: Guid = NOTIFICATION_TYPES["pei"]
    record_id: U64 = 0
    """Unique for its creator."""
    flags: Annotated[RecordFlags, u32] = RecordFlags(0)
    persistence_information: U64 = 0
    """The persistence layer's own."""
    reserved: ClassVar[Word] = Reserved(12)


class SectionDescriptor(Struct, size=72):
    """Section descriptor (N.2.2, Table N.3)."""

    section_offset: U32
    """Bytes from the start of the record to the body."""
    section_length: U32
    """Bytes of the body."""
    revision: U16 = 0x0100
    validation_bits: ClassVar[Word] = ValidationBits("B")
    reserved: ClassVar[Word] = Reserved(1)
    flags: Annotated[SectionFlags, u32] = SectionFlags(0)
    section_type: Guid
    fru_id: Annotated[UUID | None, guid, Valid(0)] = None
    """The field-replaceable unit."""
    severity: Annotated[Severity, u32] = Severity.RECOVERABLE
    fru_text: Annotated[str | None, text(20), Valid(1)] = None
    """The field-replaceable unit in words."""

    @property
    def span(self) -> tuple[int, int]:
        """First byte of the body, and the byte behind its last."""
        return self.section_offset, self.section_offset + self.section_length

    @classmethod
    def blank(cls, section_type: UUID) -> Self:
        """A descriptor of this type; a record sets the place of its body."""
        return cls(section_offset=0, section_length=0, section_type=section_type)


__all__ = ["NIL", "NOTIFICATION_TYPES", "RecordFlags", "RecordHeader", "SectionDescriptor"]
