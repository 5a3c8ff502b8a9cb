"""PCI Express Error section (UEFI 2.10 and 2.11, N.2.7); the capability structure and AER are in ``pcie_registers``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from cper.pcie_registers import PcieAer, PcieCapability, PciePortType
from cper.section import Section
from cper.wire import U8, U16, U24, U32, U64, Bcd, Bits, Reserved, Struct, Valid, ValidationBits, Word, u32


class PcieVersion(Struct, size=4):
    """Version of the PCI Express specification that the platform keeps to (Version)."""

    minor: Bcd = 0
    major: Bcd = 0
    reserved: ClassVar[Word] = Reserved(2)


class PcieCommandStatus(Struct, size=4):
    """The two registers of PCI configuration space (Command Status)."""

    command: U16 = 0
    """PCI command register."""
    status: U16 = 0
    """PCI status register."""


class PcieDeviceId(Struct, size=16):
    """Which device (Device ID)."""

    vendor_id: U16
    device_id: U16
    class_code: U24 = 0
    """Base class (23:16), sub-class (15:8), programming interface (7:0)."""
    function: U8 = 0
    device: U8 = 0
    segment: U16 = 0
    bus: U8 = 0
    """Primary bus of a root port or bridge, else the device's bus."""
    secondary_bus: U8 = 0
    """Of a root port or bridge."""
    slot: ClassVar[Word] = Word("H")
    slot_number: Annotated[int, Bits("slot", 3, 16)] = 0
    reserved: ClassVar[Word] = Reserved(1)


class PcieRcrbDeviceId(Struct, size=16):
    """Which device, named by its RCRB, as UEFI 2.11 allows (Device ID)."""

    vendor_id: U16
    device_id: U16
    class_code: U24 = 0
    """Base class (23:16), sub-class (15:8), programming interface (7:0)."""
    rcrb_low_address: U32
    """Lower 32 bits of the base address of the RCRB."""
    bus: U8 = 0
    """Primary bus of a root port or bridge, else the device's bus."""
    secondary_bus: U8 = 0
    """Of a root port or bridge."""
    slot: ClassVar[Word] = Word("H")
    slot_number: Annotated[int, Bits("slot", 3, 16)] = 0
    reserved: ClassVar[Word] = Reserved(1)


class PcieBridge(Struct, size=4):
    """Two registers of a bridge or root port (Bridge Control Status)."""

    secondary_status: U16 = 0
    """Bridge secondary status register."""
    control: U16 = 0
    """Bridge control register."""


class Pcie(Section, size=208, guid="d995e954-bbc1-430f-ad91-b44dcb3c6f35"):
    """An error of a PCI Express component; ``PcieByRcrb`` reads one whose device is named by its RCRB."""

    validation_bits: ClassVar[Word] = ValidationBits("Q")
    port_type: Annotated[PciePortType | None, u32, Valid(0)] = None
    """What kind of port or device it is."""
    version: Annotated[PcieVersion | None, Valid(1)] = None
    """Version of the specification."""
    command_status: Annotated[PcieCommandStatus | None, Valid(2)] = None
    """Command and status register."""
    rcrb_high_address: Annotated[U32 | None, Valid(9)] = None
    """Upper 32 bits of the base address of its RCRB; 0 if not valid (UEFI 2.11)."""
    device_id: Annotated[PcieDeviceId | None, Valid(3)] = None
    """Which device."""
    serial_number: Annotated[U64 | None, Valid(4)] = None
    """Device Serial Number: lower dword first on the wire."""
    bridge: Annotated[PcieBridge | None, Valid(5)] = None
    """Secondary status and control register of a bridge."""
    capability: Annotated[PcieCapability | None, Valid(6)] = None
    """The PCI Express capability structure; of PCIe 1.1 only the first 36 bytes."""
    aer: Annotated[PcieAer | None, Valid(7)] = None
    """Advanced Error Reporting extended capability."""

    @classmethod
    def form_of(cls, body: bytes | bytearray | memoryview, at: int = 0) -> type[Section]:
        """By RCRB where validation bit 8 is set, and bit 3 is clear, as it must be then."""
        return PcieByRcrb if len(body) > at + 1 and body[at + 1] & 1 and not body[at] & 8 else cls

    @classmethod
    def form_of_plain(cls, value: Mapping[str, Any]) -> type[Section]:
        """By RCRB where its device is."""
        device = value.get("device_id")
        return PcieByRcrb if isinstance(device, Mapping) and "rcrb_low_address" in device else cls


class PcieByRcrb(Pcie, size=208):
    """The same of a device that is named by the base address of its RCRB, as UEFI 2.11 allows."""

    device_id: Annotated[PcieRcrbDeviceId | None, Valid(8)] = None  # type: ignore[assignment]
    """Which device."""

    @property
    def rcrb_address(self) -> int | None:
        """Base address of the RCRB; None where the device is not named."""
        return None if self.device_id is None else (self.rcrb_high_address or 0) << 32 | self.device_id.rcrb_low_address


Pcie.FORMS = (Pcie, PcieByRcrb)
