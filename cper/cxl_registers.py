"""Registers in a CXL Protocol Error section: DVSEC header (PCIe 6.0, 7.9.6), RAS capability (CXL 3.1, 8.2.4.17)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.wire import U16, Bits, OpenFlags, Struct, Word, array, u32


class DvsecHeader(Struct, size=10):
    """Designated Vendor-Specific Extended Capability: what precedes the vendor's registers."""

    capability_id: U16 = 0x23
    capability: ClassVar[Word] = Word("H")
    capability_version: Annotated[int, Bits("capability", 0, 4)] = 1
    next_capability: Annotated[int, Bits("capability", 4, 16)] = 0
    """Offset in configuration space; 0: it is the last."""
    header_1: ClassVar[Word] = Word("I")
    vendor_id: Annotated[int, Bits("header_1", 0, 16)]
    """Who defines the registers: 0x1e98 for CXL."""
    revision: Annotated[int, Bits("header_1", 16, 20)] = 0
    """Of the registers."""
    length: Annotated[int, Bits("header_1", 20, 32)]
    """Bytes, header included."""
    dvsec_id: U16
    """Which of the vendor's."""


class CxlUncorrectableError(OpenFlags):
    """Bits of the uncorrectable error status, mask and severity registers (8.2.4.17.1)."""

    CACHE_DATA_PARITY = 1 << 0
    CACHE_ADDRESS_PARITY = 1 << 1
    CACHE_BYTE_ENABLE_PARITY = 1 << 2
    CACHE_DATA_ECC = 1 << 3
    MEM_DATA_PARITY = 1 << 4
    MEM_ADDRESS_PARITY = 1 << 5
    MEM_BYTE_ENABLE_PARITY = 1 << 6
    MEM_DATA_ECC = 1 << 7
    REINIT_THRESHOLD = 1 << 8
    RESERVED_ENCODING_VIOLATION = 1 << 9
    POISON_RECEIVED = 1 << 10
    RECEIVER_OVERFLOW = 1 << 11
    INTERNAL_ERROR = 1 << 14
    IDE_TX_ERROR = 1 << 15
    IDE_RX_ERROR = 1 << 16


class CxlCorrectableError(OpenFlags):
    """Bits of the correctable error status and mask registers (8.2.4.17.4)."""

    CACHE_DATA_ECC = 1 << 0
    MEM_DATA_ECC = 1 << 1
    CRC_THRESHOLD = 1 << 2
    RETRY_THRESHOLD = 1 << 3
    CACHE_POISON_RECEIVED = 1 << 4
    MEM_POISON_RECEIVED = 1 << 5
    PHYSICAL_LAYER_ERROR = 1 << 6


class CxlRasCapability(Struct, size=88):
    """CXL RAS Capability Structure."""

    uncorrectable_error_status: Annotated[CxlUncorrectableError, u32] = CxlUncorrectableError(0)
    uncorrectable_error_mask: Annotated[CxlUncorrectableError, u32] = CxlUncorrectableError(0)
    uncorrectable_error_severity: Annotated[CxlUncorrectableError, u32] = CxlUncorrectableError(0)
    """Set: reported as fatal."""
    correctable_error_status: Annotated[CxlCorrectableError, u32] = CxlCorrectableError(0)
    correctable_error_mask: Annotated[CxlCorrectableError, u32] = CxlCorrectableError(0)
    capabilities_and_control: ClassVar[Word] = Word("I")
    first_error_pointer: Annotated[int, Bits("capabilities_and_control", 0, 6)] = 0
    """Bit of the uncorrectable error that was reported first."""
    multiple_header_recording_capable: Annotated[bool, Bits("capabilities_and_control", 9, 10)] = False
    poison_enabled: Annotated[bool, Bits("capabilities_and_control", 13, 14)] = False
    header_log: Annotated[tuple[int, ...], array("I", 16)] = (0,) * 16
    """Header of the first error, by the kind of error."""
