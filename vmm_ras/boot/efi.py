"""What is left of UEFI when an operating system runs: system table, configuration tables, memory map (UEFI 2.10, 4).

There are no runtime services, and the EFI_RT_PROPERTIES_TABLE (4.6.2) says so.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple
from uuid import UUID

from acpi.machine import Range
from cper.wire import U16, U32, U64, Guid, OpenEnum, Reserved, Struct, u32
from vmm_ras.errors import InputError

PAGE = 4096
"""Bytes of a page of the memory map, whatever the guest's page size is."""
GUIDS = {
    "acpi_20": UUID("8868e871-e4f1-11d3-bc22-0080c73c8881"),
    "rt_properties": UUID("eb66918a-7eef-402a-842e-931d21c38ae9"),
}
"""Of the configuration tables."""
SYSTEM_TABLE_SIGNATURE = 0x5453_5953_2049_4249
MEMORY_WB = 8
DESCRIPTOR_VERSION = 1
RT_PROPERTIES_VERSION = 1
REVISION_2_10 = 2 << 16 | 100


class MemoryType(OpenEnum):
    """EFI_MEMORY_TYPE (7.2.1), as far as a map without firmware has it."""

    RESERVED = 0
    CONVENTIONAL = 7
    ACPI_RECLAIM = 9
    ACPI_NVS = 10


class MemoryDescriptor(Struct, size=40):
    """EFI_MEMORY_DESCRIPTOR, version 1 (7.2.3)."""

    type: Annotated[MemoryType, u32]
    pad: ClassVar = Reserved(4)
    physical_start: U64
    virtual_start: U64 = 0
    number_of_pages: U64
    attribute: U64 = MEMORY_WB


class ConfigurationTable(Struct, size=24):
    """EFI_CONFIGURATION_TABLE (4.6)."""

    vendor_guid: Guid
    vendor_table: U64


class RtProperties(Struct, size=8):
    """EFI_RT_PROPERTIES_TABLE (4.6.2): which runtime services can be called; here none."""

    version: U16 = RT_PROPERTIES_VERSION
    length: U16 = 8
    runtime_services_supported: U32 = 0


class SystemTable(Struct, size=120):
    """EFI_SYSTEM_TABLE after ExitBootServices (4.3)."""

    signature: U64 = SYSTEM_TABLE_SIGNATURE
    revision: U32 = REVISION_2_10
    header_size: U32 = 120
    crc32: U32 = 0
    header_reserved: ClassVar = Reserved(4)
    firmware_vendor: U64
    firmware_revision: U32 = 0
    pad: ClassVar = Reserved(4)
    console_in_handle: U64 = 0
    con_in: U64 = 0
    console_out_handle: U64 = 0
    con_out: U64 = 0
    standard_error_handle: U64 = 0
    std_err: U64 = 0
    runtime_services: U64 = 0
    boot_services: U64 = 0
    number_of_table_entries: U64
    configuration_table: U64

    def sealed(self) -> SystemTable:
        """With the CRC-32 of the header (4.2)."""
        return self.model_copy(update={"crc32": zlib.crc32(self.model_copy(update={"crc32": 0}).encode())})


class Used(NamedTuple):
    """RAM that is not the guest's to hand out."""

    range: Range
    kind: Literal["ACPI reclaim", "ACPI NVS", "reserved"]


_TYPES = {
    "ACPI reclaim": MemoryType.ACPI_RECLAIM,
    "ACPI NVS": MemoryType.ACPI_NVS,
    "reserved": MemoryType.RESERVED,
}


def memory_map(memory: Sequence[Range], used: Sequence[Used]) -> list[MemoryDescriptor]:
    """All RAM in order of address: what is used, and between that what is free.

    Raises InputError for what overlaps, is no whole page, or lies outside RAM.
    """
    out: list[MemoryDescriptor] = []
    left = sorted(used, key=lambda u: u.range)
    for ram in sorted(memory):
        at = ram.gpa
        while left and left[0].range.within(ram):
            r, kind = left.pop(0)
            if r.gpa < at or r.gpa % PAGE or r.size % PAGE:
                raise InputError(f"EFI memory map: {kind} memory at {r} overlaps other memory, or is no whole page")
            _add(out, MemoryType.CONVENTIONAL, at, r.gpa)
            _add(out, _TYPES[kind], r.gpa, r.end)
            at = r.end
        _add(out, MemoryType.CONVENTIONAL, at, ram.end)
    if left:
        raise InputError(f"EFI memory map: {left[0].kind} memory at {left[0].range} is not in RAM")
    return out


def _add(out: list[MemoryDescriptor], kind: MemoryType, start: int, end: int) -> None:
    if start < end:
        out.append(MemoryDescriptor(type=kind, physical_start=start, number_of_pages=(end - start) // PAGE))


class EfiImage(NamedTuple):
    """The tables in memory, and what the device tree says of them."""

    regions: tuple[tuple[str, int, bytes], ...]
    """(name, guest physical address, bytes)."""
    system_table: int
    memory_map: int
    memory_map_size: int


def place(at: int, size: int, rsdp: int, descriptors: Sequence[MemoryDescriptor], vendor: str = "vmm-ras") -> EfiImage:
    """System table, configuration tables and memory map within ``size`` bytes at ``at``.

    Raises InputError where they do not fit.
    """
    tables = at + SystemTable.SIZE
    entries = 2
    properties = tables + entries * ConfigurationTable.SIZE
    name = properties + RtProperties.SIZE
    vendor_bytes = vendor.encode("utf-16-le") + b"\0\0"
    map_at = name + len(vendor_bytes) + 7 & -8
    map_bytes = b"".join(d.encode() for d in descriptors)
    if map_at + len(map_bytes) > at + size:
        raise InputError(f"EFI tables: {map_at + len(map_bytes) - at} bytes do not fit into {size}")
    system = SystemTable(firmware_vendor=name, number_of_table_entries=entries, configuration_table=tables)
    configuration = (
        ConfigurationTable(vendor_guid=GUIDS["acpi_20"], vendor_table=rsdp),
        ConfigurationTable(vendor_guid=GUIDS["rt_properties"], vendor_table=properties),
    )
    regions = (
        ("efi_system_table", at, system.sealed().encode()),
        ("efi_configuration_tables", tables, b"".join(c.encode() for c in configuration)),
        ("efi_rt_properties", properties, RtProperties().encode()),
        ("efi_vendor", name, vendor_bytes),
        ("efi_memory_map", map_at, map_bytes),
    )
    return EfiImage(regions, at, map_at, len(map_bytes))
