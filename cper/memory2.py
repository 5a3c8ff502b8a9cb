"""Platform Memory Error 2 section (UEFI 2.10, N.2.6)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.error_status import ErrorStatus
from cper.memory import MemoryErrorType
from cper.section import Section
from cper.wire import U8, U16, U32, U64, Bits, Reserved, Struct, Valid, ValidationBits, Word, u8


class MemoryStatus(Struct, size=1):
    """How the error ended (Status)."""

    word: ClassVar[Word] = Word("B")
    uncorrected: Annotated[bool, Bits("word", 0, 1)] = False
    """Else it was corrected."""


class PlatformMemory2(Section, size=96, guid="61ec04fc-48e6-d813-25c9-8daa44750b12"):
    """An error in platform memory, with wider numbers than Platform Memory has.  Linux has no decoder for it."""

    validation_bits: ClassVar[Word] = ValidationBits("Q")
    error_status: Annotated[ErrorStatus | None, Valid(0)] = None
    """What was detected."""
    physical_address: Annotated[U64 | None, Valid(1)] = None
    """Physical address at which the memory error occurred."""
    physical_address_mask: Annotated[U64 | None, Valid(2)] = None
    """Which bits of physical_address are meaningful."""
    node: Annotated[U16 | None, Valid(3)] = None
    """Node, in a multi-node system."""
    card: Annotated[U16 | None, Valid(4)] = None
    """Card (memory riser)."""
    module: Annotated[U16 | None, Valid(5)] = None
    """Module (DIMM)."""
    bank: Annotated[U16 | None, Valid(6)] = None
    """Bank, when addressed as a whole."""
    bank_address: Annotated[int | None, Bits("bank", 0, 8), Valid(21)] = None
    """Bank address, when addressed as group and address."""
    bank_group: Annotated[int | None, Bits("bank", 8, 16), Valid(20)] = None
    """Bank group, when addressed as group and address."""
    device: Annotated[U32 | None, Valid(7)] = None
    """Device (DRAM chip)."""
    row: Annotated[U32 | None, Valid(8)] = None
    """Row."""
    column: Annotated[U32 | None, Valid(9)] = None
    """Column."""
    rank: Annotated[U32 | None, Valid(10)] = None
    """Rank number."""
    bit_position: Annotated[U32 | None, Valid(11)] = None
    """Bit at which the error occurred."""
    chip_id: Annotated[U8 | None, Valid(12)] = None
    """Chip Identification, for stacked DRAM."""
    error_type: Annotated[MemoryErrorType | None, u8, Valid(13)] = None
    """Memory Error Type."""
    status: Annotated[MemoryStatus | None, Valid(14)] = None
    """How the error ended."""
    reserved: ClassVar[Word] = Reserved(1)
    requestor_id: Annotated[U64 | None, Valid(15)] = None
    """Hardware address of the requestor."""
    responder_id: Annotated[U64 | None, Valid(16)] = None
    """Hardware address of the responder."""
    target_id: Annotated[U64 | None, Valid(17)] = None
    """Hardware address of the intended target."""
    card_handle: Annotated[U32 | None, Valid(18)] = None
    """SMBIOS Type 16 handle of the card."""
    module_handle: Annotated[U32 | None, Valid(19)] = None
    """SMBIOS Type 17 handle of the module."""

    def check(self) -> None:
        """A bank is named one way (N.2.6, validation bits 6, 20 and 21)."""
        if self.bank is not None and (self.bank_group is not None or self.bank_address is not None):
            raise ValueError("bank excludes bank_group and bank_address (N.2.6, validation bits 6, 20 and 21)")
