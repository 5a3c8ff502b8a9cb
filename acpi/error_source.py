"""Error source structures of fixed size (ACPI 6.5, 18.3.2.3 to 18.3.2.8): NMI, PCI Express AER, generic sources.

The machine-check sources, whose bank lists vary in length, are in ``acpi.machine_check``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from acpi.gas import GenericAddress
from acpi.notification import HardwareErrorNotification
from cper.wire import U8, U16, U32, U64, Bits, OpenFlags, Reserved, Struct, Word, u8, u16

NO_RELATED_SOURCE = 0xFFFF
"""Related Source Id of a generic source that stands alone (18.3.2.7)."""


class SourceFlags(OpenFlags):
    """Flags of a native error source (18.3.2.1 to 18.3.2.6, 18.3.2.10)."""

    FIRMWARE_FIRST = 1 << 0
    GLOBAL = 1 << 1
    GHES_ASSIST = 1 << 2


class NmiSource(Struct, size=20):
    """IA-32 Architecture Non-Maskable Interrupt (18.3.2.3)."""

    TYPE: ClassVar[int] = 2
    type: Annotated[Literal[2], u16] = 2
    source_id: U16
    """Names the source; unique in the table."""
    reserved: ClassVar[Word] = Reserved(4)
    records_to_preallocate: U32 = 1
    """Records that OSPM keeps ready; at least 1."""
    max_sections_per_record: U32 = 1
    """Most sections in one record; at least 1."""
    max_raw_data_length: U32 = 0
    """Bytes of the largest raw error data."""


class NativeSource(Struct):
    """What machine-check and AER sources have in common; not a structure by itself."""

    type: Annotated[int, u16]
    """Source type."""
    source_id: U16
    """Names the source; unique in the table."""
    reserved: ClassVar[Word] = Reserved(2)
    flags: Annotated[SourceFlags, u8] = SourceFlags(0)
    """Who handles the error first, and for which devices."""
    enabled: U8 = 1
    """1: OSPM may use the source."""
    records_to_preallocate: U32 = 1
    """Records that OSPM keeps ready; at least 1."""
    max_sections_per_record: U32 = 1
    """Most sections in one record; at least 1."""


class _AerSource(NativeSource):
    """What the three AER sources have in common; not a structure by itself."""

    bus_and_segment: ClassVar[Word] = Word("I")
    bus: Annotated[int, Bits("bus_and_segment", 0, 8)] = 0
    """Bus number; ignored with GLOBAL."""
    segment: Annotated[int, Bits("bus_and_segment", 8, 24)] = 0
    """PCI segment group; ignored with GLOBAL."""
    device: U16 = 0
    """Device number; ignored with GLOBAL."""
    function: U16 = 0
    """Function number; ignored with GLOBAL."""
    device_control: U16 = 0
    """What OSPM writes into the Device Control register."""
    reserved2: ClassVar[Word] = Reserved(2)
    uncorrectable_mask: U32 = 0
    """What OSPM writes into the Uncorrectable Error Mask register."""
    uncorrectable_severity: U32 = 0
    """What OSPM writes into the Uncorrectable Error Severity register."""
    correctable_mask: U32 = 0
    """What OSPM writes into the Correctable Error Mask register."""
    advanced_capabilities: U32 = 0
    """What OSPM writes into the Advanced Error Capabilities and Control register."""


class PcieDeviceAer(_AerSource, size=44):
    """PCI Express Device AER (18.3.2.5): an endpoint."""

    TYPE: ClassVar[int] = 7
    type: Annotated[Literal[7], u16] = 7


class PcieRootPortAer(_AerSource, size=48):
    """PCI Express Root Port AER (18.3.2.4)."""

    TYPE: ClassVar[int] = 6
    type: Annotated[Literal[6], u16] = 6
    root_error_command: U32 = 0
    """What OSPM writes into the Root Error Command register."""


class PcieBridgeAer(_AerSource, size=56):
    """PCI Express/PCI-X Bridge AER (18.3.2.6)."""

    TYPE: ClassVar[int] = 8
    type: Annotated[Literal[8], u16] = 8
    secondary_uncorrectable_mask: U32 = 0
    """What OSPM writes into the Secondary Uncorrectable Error Mask register."""
    secondary_uncorrectable_severity: U32 = 0
    """What OSPM writes into the Secondary Uncorrectable Error Severity register."""
    secondary_advanced_capabilities: U32 = 0
    """What OSPM writes into the Secondary Advanced Error Capabilities and Control register."""


class GenericHardwareErrorSource(Struct, size=64):
    """Generic Hardware Error Source (18.3.2.7)."""

    TYPE: ClassVar[int] = 9
    type: Annotated[Literal[9], u16] = 9
    source_id: U16
    """Names the source; unique in the table."""
    related_source_id: U16 = NO_RELATED_SOURCE
    """The native source that this one assists; 0xFFFF: there is none."""
    flags: U8 = 0
    """Reserved, 0."""
    enabled: U8 = 1
    """1: OSPM may use the source; Linux skips it otherwise."""
    records_to_preallocate: U32 = 1
    """Records that OSPM keeps ready; at least 1."""
    max_sections_per_record: U32 = 1
    """Most sections in one record; at least 1."""
    max_raw_data_length: U32 = 0
    """Bytes of the largest raw error data."""
    error_status_address: GenericAddress
    """A 64-bit register that *holds* the guest physical address of the Generic Error Status Block."""
    notification: HardwareErrorNotification
    """How OSPM hears of a new block."""
    error_status_block_length: U32
    """Bytes kept for the block."""


class GenericHardwareErrorSourceV2(GenericHardwareErrorSource, size=92):
    """Generic Hardware Error Source version 2 (18.3.2.8): with a Read Ack Register."""

    TYPE: ClassVar[int] = 10
    type: Annotated[Literal[10], u16] = 10  # type: ignore[assignment]
    read_ack_register: GenericAddress
    """A 64-bit register: after reading the block OSPM writes ``value & preserve | write``."""
    read_ack_preserve: U64 = 0xFFFF_FFFF_FFFF_FFFE
    """The register's bits that OSPM keeps."""
    read_ack_write: U64 = 1
    """The register's bits that OSPM sets."""
