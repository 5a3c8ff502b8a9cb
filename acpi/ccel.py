"""Confidential Computing Event Log Table (ACPI 6.5, 5.2.34): where a confidential guest's event log lies."""

from __future__ import annotations

from typing import Annotated, ClassVar

from acpi.frame import FixedTable, TableHead
from cper.wire import U8, U64, OpenEnum, Reserved, Word, u8


class CcType(OpenEnum):
    """Confidential computing architecture."""

    NONE = 0
    SEV = 1
    TDX = 2
    AP_TEE = 3
    ARM_CCA = 4


class CcelHeader(TableHead, size=56):
    """The whole table."""

    cc_type: Annotated[CcType, u8]
    """Architecture of the guest."""
    cc_subtype: U8 = 0
    """The architecture's own."""
    reserved: ClassVar[Word] = Reserved(2)
    log_area_minimum_length: U64
    """Bytes of the log area."""
    log_area_start_address: U64
    """Guest physical address of the log area."""


class Ccel(FixedTable[CcelHeader]):
    """Confidential Computing Event Log Table (5.2.34)."""

    SIGNATURE = "CCEL"
    REVISION = 1
    HEAD = CcelHeader


__all__ = ["CcType", "Ccel", "CcelHeader"]
