"""Serial Port Console Redirection Table (Microsoft SPCR, revision 2), as an Arm machine with a PL011 has it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from acpi.frame import FixedTable, TableHead
from acpi.gas import GenericAddress
from cper.wire import U8, U16, U32, OpenEnum, Reserved, Word, u8


class UartType(OpenEnum):
    """Interface type (Microsoft DBG2, table 3)."""

    NS16550 = 0x00
    ARM_PL011 = 0x03
    ARM_SBSA_GENERIC = 0x0E
    NS16550_GAS = 0x12


class SpcrHeader(TableHead, size=80):
    """The whole table up to revision 2."""

    interface_type: Annotated[UartType, u8] = UartType.ARM_PL011
    reserved: ClassVar[Word] = Reserved(3)
    base_address: GenericAddress
    """The UART's registers."""
    interrupt_type: U8 = 8
    """Bit 3: an Arm GIC interrupt."""
    irq: U8 = 0
    """PC interrupt; not used on Arm."""
    gsiv: U32 = 0
    baud_rate: U8 = 3
    """3: 9600; 4: 19200; 6: 57600; 7: 115200; 0: as firmware left it."""
    parity: U8 = 0
    stop_bits: U8 = 1
    flow_control: U8 = 2
    """Bit 1: RTS/CTS."""
    terminal_type: U8 = 0
    """0: VT100."""
    language: U8 = 0
    pci_device_id: U16 = 0xFFFF
    """0xFFFF: no PCI device."""
    pci_vendor_id: U16 = 0xFFFF
    pci_bus: U8 = 0
    pci_device: U8 = 0
    pci_function: U8 = 0
    pci_flags: U32 = 0
    pci_segment: U8 = 0
    uart_clock_frequency: U32 = 0
    """Hz, from revision 3 on; 0: not said."""


class Spcr(FixedTable[SpcrHeader]):
    """Serial Port Console Redirection Table: which UART is the console."""

    SIGNATURE = "SPCR"
    REVISION = 2
    HEAD = SpcrHeader


__all__ = ["Spcr", "SpcrHeader", "UartType"]
