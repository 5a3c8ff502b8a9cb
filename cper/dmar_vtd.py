"""DMAr error section of Intel Virtualization Technology for Directed I/O (UEFI 2.10, N.2.11.2)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.section import Section
from cper.wire import U8, U32, U64, Bits, Reserved, Struct, Word, array, text


class VtdFaultRecord(Struct, size=16):
    """A Fault Recording Register (Fault record), as the VT-d specification lays it out."""

    low: ClassVar[Word] = Word("Q")
    fault_information: Annotated[int, Bits("low", 12, 64)] = 0
    """Address of the page that the request named (63:12), for a translation fault."""
    high: ClassVar[Word] = Word("Q")
    source_identifier: Annotated[int, Bits("high", 0, 16)] = 0
    """Device (bus, device and function) that asked."""
    privilege_mode_requested: Annotated[bool, Bits("high", 29, 30)] = False
    execute_permission_requested: Annotated[bool, Bits("high", 30, 31)] = False
    pasid_present: Annotated[bool, Bits("high", 31, 32)] = False
    fault_reason: Annotated[int, Bits("high", 32, 40)] = 0
    """Fault code of the VT-d specification."""
    pasid_value: Annotated[int, Bits("high", 40, 60)] = 0
    """Process address space of the request, where one was present."""
    address_type: Annotated[int, Bits("high", 60, 62)] = 0
    """Address type field of the request."""
    type: Annotated[int, Bits("high", 62, 63)] = 0
    """0: write request; 1: read or AtomicOp request."""


class DmarVtd(Section, size=144, guid="71761d37-32b2-45cd-a7d0-b0fedd93e8cf"):
    """A DMA remapping fault of VT-d: registers and tables of the remapping unit."""

    version: U8 = 0
    """VER_REG."""
    revision: U8 = 0
    """Value of the Revision field of the VT-d specific DMA remapping reporting structure."""
    oem_id: Annotated[str, text(6)] = ""
    """OEM ID of that structure."""
    capability: U64 = 0
    """CAP_REG."""
    extended_capability: U64 = 0
    """ECAP_REG."""
    global_command: U32 = 0
    """GCMD_REG."""
    global_status: U32 = 0
    """GSTS_REG."""
    fault_status: U32 = 0
    """FSTS_REG."""
    reserved: ClassVar[Word] = Reserved(12)
    fault_record: VtdFaultRecord
    """Fault Recording Register."""
    root_entry: Annotated[tuple[int, ...], array("Q", 2)] = (0, 0)
    """Root table entry of the requester."""
    context_entry: Annotated[tuple[int, ...], array("Q", 2)] = (0, 0)
    """Context table entry of the requester."""
    level_6_page_table_entry: U64 = 0
    level_5_page_table_entry: U64 = 0
    level_4_page_table_entry: U64 = 0
    level_3_page_table_entry: U64 = 0
    level_2_page_table_entry: U64 = 0
    level_1_page_table_entry: U64 = 0
