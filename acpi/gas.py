"""Generic Address Structure (ACPI 6.5, 5.2.3.2)."""

from __future__ import annotations

from typing import Annotated

from cper.wire import U8, U64, OpenEnum, Struct, u8


class AddressSpace(OpenEnum):
    """Address Space ID."""

    SYSTEM_MEMORY = 0
    SYSTEM_IO = 1
    PCI_CONFIG = 2
    EMBEDDED_CONTROLLER = 3
    SMBUS = 4
    SYSTEM_CMOS = 5
    PCI_BAR_TARGET = 6
    IPMI = 7
    GPIO = 8
    GENERIC_SERIAL_BUS = 9
    PCC = 0x0A
    FUNCTIONAL_FIXED_HARDWARE = 0x7F


class AccessSize(OpenEnum):
    """Access Size: the widest access that the register takes."""

    UNDEFINED = 0
    BYTE = 1
    WORD = 2
    DWORD = 3
    QWORD = 4


class GenericAddress(Struct, size=12):
    """A register's address; by default a 64-bit register in system memory."""

    address_space: Annotated[AddressSpace, u8] = AddressSpace.SYSTEM_MEMORY
    bit_width: U8 = 64
    """Register width in bits."""
    bit_offset: U8 = 0
    """Lowest bit of the register at the address."""
    access_size: Annotated[AccessSize, u8] = AccessSize.QWORD
    address: U64 = 0
    """Address in the address space; a guest physical address in system memory."""
