"""A lost page becomes a CPER section in a data entry in a status block (UEFI 2.10, N.2.5; ACPI 6.5, 18.3.2.7.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from acpi.ghes import DataEntry300, ErrorStatusHeader
from cper.common import SectionFlags, Severity, Timestamp
from cper.memory import PlatformMemory

HEADER_SIZE = ErrorStatusHeader.SIZE
ENTRY_SIZE = DataEntry300.SIZE + PlatformMemory.SIZE
"""Bytes of one memory entry, its section included: 152."""
ALL_ONES = (1 << 64) - 1

_header, _entry, _memory = ErrorStatusHeader.pack, DataEntry300.pack, PlatformMemory.pack


@dataclass(frozen=True)
class RecordStyle:
    """Which optional things a record says."""

    count: bool = True
    """Entry count, and the multiple-errors bits, in the block status."""
    mask: bool = True
    """Physical Address Mask: how much is lost."""
    fru_text: bool = True
    """A running number as FRU text, so that no two blocks are alike: Linux ignores a block that it saw within 10 s."""
    timestamp: bool = True
    """When the host saw the error, where that is known."""
    error_type: int | None = None
    """Memory Error Type for rules that give none."""


NATIVE = RecordStyle()
QEMU = RecordStyle(count=False, mask=False, fru_text=False, timestamp=False, error_type=0)
"""What QEMU writes for a poisoned page (hw/acpi/ghes.c): address and type 0, nothing else."""
STYLES = {"native": NATIVE, "qemu": QEMU}


def capacity(block_length: int, max_sections: int) -> int:
    """How many memory entries fit a block of ``block_length`` bytes whose source allows ``max_sections``."""
    return max(0, min((block_length - HEADER_SIZE) // ENTRY_SIZE, max_sections, 0x3FF))


@lru_cache(maxsize=64)
def _timestamp(second: int) -> Timestamp | None:
    try:
        return Timestamp.of(second, precise=True)
    except ValueError:
        return None


def memory_block(
    pages: Sequence[tuple[int, int]],
    *,
    severity: Severity = Severity.RECOVERABLE,
    error_type: int | None = None,
    latent: bool = False,
    number: int = 0,
    time: float | None = None,
    style: RecordStyle = NATIVE,
) -> bytes:
    """A status block with one memory entry per page, its block status set.

    ``pages``: (guest physical address, bytes), sizes powers of two.  ``latent``: found, not yet consumed (section flag
    Latent Error).  ``number``: the record's, for the FRU text.  ``time``: seconds since the epoch.
    """
    flags = SectionFlags.LATENT_ERROR if latent else 0
    text = f"vmm memory #{number & 0xFFFFFFFF:08x}" if style.fru_text else None
    stamp = _timestamp(int(time)) if style.timestamp and time is not None else None
    if error_type is None:
        error_type = style.error_type
    entry = _entry(
        section_type=PlatformMemory.GUID, severity=severity, flags=flags, error_data_length=PlatformMemory.SIZE,
        fru_text=text, timestamp=stamp,
    )  # fmt: skip
    count = len(pages)
    corrected = severity == Severity.CORRECTED
    several = count > 1 and style.count
    parts = [
        _header(
            correctable=corrected, uncorrectable=not corrected,
            multiple_correctable=corrected and several, multiple_uncorrectable=several and not corrected,
            entry_count=count if style.count else 0, data_length=count * ENTRY_SIZE, severity=severity,
        )
    ]  # fmt: skip
    for gpa, size in pages:
        mask = -size & ALL_ONES if style.mask else None
        parts += (entry, _memory(physical_address=gpa, physical_address_mask=mask, error_type=error_type))
    return b"".join(parts)
