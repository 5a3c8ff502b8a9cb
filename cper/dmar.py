"""DMAr Generic Error section (UEFI 2.10, N.2.11.1): a fault that DMA remapping hardware of any kind reported."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.section import Section
from cper.wire import U16, U64, OpenEnum, Reserved, Word, u8


class DmarFaultReason(OpenEnum):
    """Why the access was refused (Fault Reason)."""

    DOMAIN_MAPPING_ENTRY_NOT_PRESENT = 1
    DOMAIN_MAPPING_ENTRY_INVALID = 2
    DOMAIN_MAPPING_TABLE_ACCESS = 3
    DOMAIN_MAPPING_ENTRY_RESERVED_BIT = 4
    ADDRESS_OUT_OF_SPACE = 5
    INVALID_ACCESS = 6
    INVALID_REQUEST = 7
    TRANSLATION_TABLE_ACCESS = 8
    TRANSLATION_ENTRY_RESERVED_BIT = 9
    INVALID_COMMAND = 10
    COMMAND_BUFFER_ACCESS = 11


class DmarAccessType(OpenEnum):
    """What was tried (Access Type), by the text; the constants of edk2 and libcper have it the other way round."""

    DMA_WRITE = 0
    DMA_READ = 1


class DmarAddressType(OpenEnum):
    """What kind of address the request held (Address Type)."""

    UNTRANSLATED = 0
    TRANSLATION_REQUEST = 1


class DmarArchitectureType(OpenEnum):
    """Whose remapping hardware it is (Architecture Type)."""

    VT_D = 1
    IOMMU = 2


class DmarGeneric(Section, size=32, guid="5b51fef7-c79d-4434-8f1b-aa62de3e2c64"):
    """A DMA remapping fault."""

    requester_id: U16 = 0
    """Device (bus, device and function) that asked."""
    segment_number: U16 = 0
    """PCI segment of the device."""
    fault_reason: Annotated[DmarFaultReason, u8]
    """Why the access was refused."""
    access_type: Annotated[DmarAccessType, u8] = DmarAccessType.DMA_WRITE
    """What was tried."""
    address_type: Annotated[DmarAddressType, u8] = DmarAddressType.UNTRANSLATED
    """What kind of address the request held."""
    architecture_type: Annotated[DmarArchitectureType, u8]
    """Whose remapping hardware it is."""
    device_address: U64 = 0
    """The address in the request."""
    reserved: ClassVar[Word] = Reserved(16)
