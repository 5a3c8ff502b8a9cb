"""Arm error source nodes (Arm DEN0085 1.1 and 2.0): the node header, and what a node says of its component."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.wire import U8, U16, U32, U64, OpenEnum, OpenFlags, Reserved, Struct, Word, blob, u8, u32


class AestNodeType(OpenEnum):
    """What an error node belongs to."""

    PROCESSOR = 0
    MEMORY_CONTROLLER = 1
    SMMU = 2
    VENDOR_DEFINED = 3
    GIC = 4
    PCIE_ROOT_COMPLEX = 5
    PROXY = 6


class AestNodeHeader(Struct, size=44):
    """Node header.  The offsets count from its start."""

    type: Annotated[AestNodeType, u8]
    """What the node belongs to."""
    length: U16 = 0
    """Bytes of the node."""
    reserved: ClassVar[Word] = Reserved(1)
    node_data_offset: U32 = 0
    """Bytes to the node-specific data."""
    node_interface_offset: U32 = 0
    """Bytes to the interface."""
    node_interrupt_offset: U32 = 0
    """Bytes to the interrupts; 0: there are none."""
    node_interrupt_count: U32 = 0
    """Interrupts."""
    timestamp_rate: U64 = 0
    """Hertz of the timestamp counter; 0: there is none."""
    reserved1: ClassVar[Word] = Reserved(8)
    error_injection_rate: U64 = 0
    """Hertz of the injection countdown; 0: there is none."""


class AestResourceType(OpenEnum):
    """What of a processor a node belongs to."""

    CACHE = 0
    TLB = 1
    GENERIC = 2


class AestProcessorFlags(OpenFlags):
    """Flags of a processor node."""

    GLOBAL = 1 << 0
    SHARED = 1 << 1


class AestProcessor(Struct, size=16):
    """Node-specific data of a processor; what it says of the resource follows."""

    processor_id: U32
    """The processor's ACPI id."""
    resource_type: Annotated[AestResourceType, u8]
    """What of the processor."""
    reserved: ClassVar[Word] = Reserved(1)
    flags: Annotated[AestProcessorFlags, u8] = AestProcessorFlags(0)
    """Whether the node stands for more than this processor."""
    revision: U8 = 0
    """Of this form."""
    processor_affinity: U64 = 0
    """MPIDR levels that the resource is shared at."""


class AestProcessorCache(Struct, size=8):
    """Resource of a processor: a cache."""

    cache_reference: U32
    """Cache id in the PPTT."""
    reserved: ClassVar[Word] = Reserved(4)


class AestProcessorTlb(Struct, size=8):
    """Resource of a processor: a TLB."""

    tlb_level: U32
    """Level."""
    reserved: ClassVar[Word] = Reserved(4)


class AestProcessorGeneric(Struct, size=4):
    """Resource of a processor: something of the vendor's."""

    resource: U32
    """The vendor's own."""


class AestMemory(Struct, size=4):
    """Node-specific data of a memory controller."""

    srat_proximity_domain: U32
    """Proximity domain of its memory."""


class AestSmmu(Struct, size=8):
    """Node-specific data of an SMMU."""

    iort_node_reference: U32
    """The SMMU's IORT node."""
    subcomponent_reference: U32 = 0
    """The part of it."""


class AestVendor(Struct, size=24):
    """Node-specific data of a vendor's component, revision 1."""

    acpi_hid: U32
    """Compressed hardware id."""
    acpi_uid: U32 = 0
    """Unique id."""
    vendor_data: Annotated[bytes, blob(16)] = bytes(16)
    """The vendor's own."""


class AestVendorV2(Struct, size=28):
    """Node-specific data of a vendor's component, revision 2."""

    acpi_hid: U64
    """Hardware id as eight characters."""
    acpi_uid: U32 = 0
    """Unique id."""
    vendor_data: Annotated[bytes, blob(16)] = bytes(16)
    """The vendor's own."""


class AestGicInterface(OpenEnum):
    """Which part of a GIC."""

    CPU = 0
    DISTRIBUTOR = 1
    REDISTRIBUTOR = 2
    ITS = 3


class AestGic(Struct, size=8):
    """Node-specific data of a GIC."""

    interface_type: Annotated[AestGicInterface, u32]
    """Which part."""
    instance_id: U32 = 0
    """Which of that part, as the MADT numbers them."""


class AestPcie(Struct, size=4):
    """Node-specific data of a PCIe root complex; revision 2."""

    iort_node_reference: U32
    """The root complex's IORT node."""


class AestProxy(Struct, size=8):
    """Node-specific data of a proxy; revision 2."""

    node_address: U64
    """Base address of the node that it stands for."""
