"""Generic Error Data Entry (ACPI 6.5, 18.3.2.7.1): the header of a section in a Generic Error Status Block."""

from __future__ import annotations

from typing import Annotated, ClassVar
from uuid import UUID

from cper.common import SectionFlags, Severity, Timestamp
from cper.wire import U16, U32, Guid, Struct, Valid, ValidationBits, Word, guid, text, u8, u32


class DataEntry201(Struct, size=64):
    """Generic Error Data Entry before revision 3: no timestamp."""

    section_type: Guid
    severity: Annotated[Severity, u32] = Severity.RECOVERABLE
    revision: U16 = 0x0201
    validation_bits: ClassVar[Word] = ValidationBits("B")
    flags: Annotated[SectionFlags, u8] = SectionFlags(0)
    error_data_length: U32 = 0
    """Bytes of the section that follows."""
    fru_id: Annotated[UUID | None, guid, Valid(0)] = None
    """The field-replaceable unit."""
    fru_text: Annotated[str | None, text(20), Valid(1)] = None
    """The field-replaceable unit in words."""


class DataEntry300(DataEntry201, size=72):
    """Generic Error Data Entry, revision 3."""

    revision: U16 = 0x0300
    timestamp: Annotated[Timestamp | None, Valid(2)] = None


def entry_class(revision: int) -> type[DataEntry201]:
    """The entry's form: the high byte of its revision decides, as in Linux (``acpi_hest_get_version``)."""
    return DataEntry300 if revision >> 8 >= 3 else DataEntry201
