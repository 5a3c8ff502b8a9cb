"""Platform Memory Error section (UEFI 2.10, N.2.5, Table N.31)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.error_status import ErrorStatus
from cper.section import Section
from cper.wire import U16, U64, Bits, OpenEnum, Valid, ValidationBits, Word, u8


class MemoryErrorType(OpenEnum):
    """What the memory controller saw (Memory Error Type)."""

    UNKNOWN = 0
    NO_ERROR = 1
    SINGLE_BIT_ECC = 2
    MULTI_BIT_ECC = 3
    SINGLE_SYMBOL_CHIPKILL_ECC = 4
    MULTI_SYMBOL_CHIPKILL_ECC = 5
    MASTER_ABORT = 6
    TARGET_ABORT = 7
    PARITY_ERROR = 8
    WATCHDOG_TIMEOUT = 9
    INVALID_ADDRESS = 10
    MIRROR_BROKEN = 11
    MEMORY_SPARING = 12
    SCRUB_CORRECTED_ERROR = 13
    SCRUB_UNCORRECTED_ERROR = 14
    PHYSICAL_MEMORY_MAP_OUT_EVENT = 15


class PlatformMemory(Section, size=80, sizes=(73,), guid="a5bc1114-6f64-4ede-b863-3e83ed7c83b1"):
    """An error in platform memory.  73 bytes, up to the error type, in UEFI 2.1 and 2.2; 80 since."""

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
    bank_address: Annotated[int | None, Bits("bank", 0, 8), Valid(20)] = None
    """Bank address, when addressed as group and address."""
    bank_group: Annotated[int | None, Bits("bank", 8, 16), Valid(19)] = None
    """Bank group, when addressed as group and address."""
    device: Annotated[U16 | None, Valid(7)] = None
    """Device (DRAM chip)."""
    row: Annotated[U16 | None, Valid(8)] = None
    """Row, bits 15:0."""
    column: Annotated[U16 | None, Valid(9)] = None
    """Column."""
    bit_position: Annotated[U16 | None, Valid(10)] = None
    """Bit at which the error occurred."""
    requestor_id: Annotated[U64 | None, Valid(11)] = None
    """Hardware address of the requestor."""
    responder_id: Annotated[U64 | None, Valid(12)] = None
    """Hardware address of the responder."""
    target_id: Annotated[U64 | None, Valid(13)] = None
    """Hardware address of the intended target."""
    error_type: Annotated[MemoryErrorType | None, u8, Valid(14)] = None
    """Memory Error Type."""
    extended: ClassVar[Word] = Word("B")
    row_high: Annotated[int | None, Bits("extended", 0, 2), Valid(18)] = None
    """Row, bits 17:16."""
    chip_id: Annotated[int | None, Bits("extended", 5, 8), Valid(21)] = None
    """Chip Identification, for stacked DRAM."""
    rank: Annotated[U16 | None, Valid(15)] = None
    """Rank number."""
    card_handle: Annotated[U16 | None, Valid(16)] = None
    """SMBIOS Type 16 handle of the card."""
    module_handle: Annotated[U16 | None, Valid(17)] = None
    """SMBIOS Type 17 handle of the module."""

    def check(self) -> None:
        """A bank is named one way (Table N.31, bits 6, 19 and 20)."""
        if self.bank is not None and (self.bank_group is not None or self.bank_address is not None):
            raise ValueError("bank excludes bank_group and bank_address (N.2.5, validation bits 6, 19 and 20)")
