"""How an Arm error source node is reached (Arm DEN0085 1.1 and 2.0): its interface and its interrupts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.wire import U8, U32, U64, OpenEnum, OpenFlags, Reserved, Struct, Word, array, u8, u32


class AestInterfaceType(OpenEnum):
    """How the error records are reached."""

    SYSTEM_REGISTER = 0
    MEMORY_MAPPED = 1
    SINGLE_RECORD_MEMORY_MAPPED = 2


class AestInterfaceFlags(OpenFlags):
    """Flags of an interface; from the third on revision 2.

    INTERRUPT_CONFIG_VALID is bit 6 to Linux's AEST patches, bit 7 to iasl; DEN0085 itself was not read.
    """

    SHARED = 1 << 0
    CLEAR_MISC = 1 << 1
    ERROR_NODE_DEVICE_VALID = 1 << 2
    AFFINITY_TYPE = 1 << 3
    ERROR_GROUP_VALID = 1 << 4
    FAULT_INJECTION_VALID = 1 << 5
    INTERRUPT_CONFIG_VALID = 1 << 6


class AestGroupFormat(OpenEnum):
    """Size of an error record group; revision 2."""

    FORMAT_4K = 0
    FORMAT_16K = 1
    FORMAT_64K = 2


class _Interface(Struct):
    """What every interface begins with; not a structure by itself."""

    type: Annotated[AestInterfaceType, u8]
    """How the error records are reached."""
    group_format: Annotated[AestGroupFormat, u8] = AestGroupFormat.FORMAT_4K
    """Size of a record group; reserved in revision 1."""
    reserved: ClassVar[Word] = Reserved(2)
    flags: Annotated[AestInterfaceFlags, u32] = AestInterfaceFlags(0)
    """What holds of the interface."""
    address: U64 = 0
    """Base address of the records, where they are in memory."""
    error_record_index: U32 = 0
    """First record of this node."""
    error_record_count: U32 = 0
    """Records of this node and of those before it in the group."""


class _Records64(_Interface):
    """An interface to up to 64 records; not a structure by itself."""

    error_record_implemented: U64 = 0
    """A bit per record; clear: the record is there."""
    error_status_reporting: U64 = 0
    """A bit per record; clear: it reports through the group status."""
    addressing_mode: U64 = 0
    """A bit per record; clear: its addresses are physical ones of the system."""


class AestInterface(_Records64, size=48):
    """Interface, revision 1."""


class AestInterfaceCommon(Struct, size=32):
    """What every interface of revision 2 ends with."""

    error_node_device: U32 = 0
    """Arm error node device."""
    processor_affinity: U32 = 0
    """Processors that the node belongs to."""
    error_group_register_base: U64 = 0
    """Base of the error group's registers."""
    fault_inject_register_base: U64 = 0
    """Base of the fault injection registers."""
    interrupt_config_register_base: U64 = 0
    """Base of the interrupt configuration registers."""


class AestInterface4k(_Records64, size=80):
    """Interface, revision 2, groups of 4 KiB: up to 64 records."""

    common: AestInterfaceCommon = AestInterfaceCommon()
    """What every interface ends with."""


Words4 = Annotated[tuple[int, ...], array("Q", 4)]
Words14 = Annotated[tuple[int, ...], array("Q", 14)]


class AestInterface16k(_Interface, size=152):
    """Interface, revision 2, groups of 16 KiB: up to 256 records."""

    error_record_implemented: Words4 = (0,) * 4
    """A bit per record; clear: the record is there."""
    error_status_reporting: Words4 = (0,) * 4
    """A bit per record; clear: it reports through the group status."""
    addressing_mode: Words4 = (0,) * 4
    """A bit per record; clear: its addresses are physical ones of the system."""
    common: AestInterfaceCommon = AestInterfaceCommon()
    """What every interface ends with."""


class AestInterface64k(_Interface, size=392):
    """Interface, revision 2, groups of 64 KiB: up to 896 records."""

    error_record_implemented: Words14 = (0,) * 14
    """A bit per record; clear: the record is there."""
    error_status_reporting: Words14 = (0,) * 14
    """A bit per record; clear: it reports through the group status."""
    addressing_mode: Words14 = (0,) * 14
    """A bit per record; clear: its addresses are physical ones of the system."""
    common: AestInterfaceCommon = AestInterfaceCommon()
    """What every interface ends with."""


class AestInterruptType(OpenEnum):
    """What an interrupt says."""

    FAULT_HANDLING = 0
    ERROR_RECOVERY = 1


class AestInterruptFlags(OpenFlags):
    """Flags of an interrupt."""

    LEVEL_TRIGGERED = 1 << 0


class _Interrupt(Struct):
    """What every interrupt begins with; not a structure by itself."""

    type: Annotated[AestInterruptType, u8]
    """What it says."""
    reserved: ClassVar[Word] = Reserved(2)
    flags: Annotated[AestInterruptFlags, u8] = AestInterruptFlags(0)
    """LEVEL_TRIGGERED; otherwise it is edge triggered."""
    gsiv: U32 = 0
    """Interrupt number."""


class AestInterrupt(_Interrupt, size=12):
    """Interrupt, revision 1."""

    its_group: U8 = 0
    """ITS group in the IORT, for message-signalled interrupts."""
    reserved1: ClassVar[Word] = Reserved(3)


class AestInterruptV2(_Interrupt, size=12):
    """Interrupt, revision 2."""

    reserved1: ClassVar[Word] = Reserved(4)
