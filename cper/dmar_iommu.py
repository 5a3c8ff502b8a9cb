"""DMAr error section of an AMD IOMMU (UEFI 2.10, N.2.11.3)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.section import Section
from cper.wire import U8, U64, Reserved, Word, array


class DmarIommu(Section, size=144, guid="036f84e1-7f37-428c-a79e-575fdfaa84ec"):
    """A DMA remapping fault of an IOMMU: registers and tables of the remapping unit."""

    revision: U8 = 0
    """Revision of the IOMMU specification."""
    reserved: ClassVar[Word] = Reserved(7)
    control: U64 = 0
    """Control register."""
    status: U64 = 0
    """Status register."""
    reserved_2: ClassVar[Word] = Reserved(8)
    event_log_entry: Annotated[tuple[int, ...], array("Q", 2)] = (0, 0)
    """The fault's entry in the event log."""
    reserved_3: ClassVar[Word] = Reserved(16)
    device_table_entry: Annotated[tuple[int, ...], array("Q", 4)] = (0, 0, 0, 0)
    """Device table entry of the requester."""
    level_6_page_table_entry: U64 = 0
    level_5_page_table_entry: U64 = 0
    level_4_page_table_entry: U64 = 0
    level_3_page_table_entry: U64 = 0
    level_2_page_table_entry: U64 = 0
    level_1_page_table_entry: U64 = 0
