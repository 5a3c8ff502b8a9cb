"""A status block as a CPER record, and back (ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.1 and N.2.2).

Both carry the same sections; what only one of them can say is told, never dropped in silence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from acpi.ghes import DataEntry300, Entry, StatusBlock
from cper.common import SectionFlags, Severity
from cper.record import Record
from cper.record_header import SectionDescriptor
from cper.words import counted

_FLAGS = 0xFF
"""The section flags that a data entry has room for."""


class Converted(NamedTuple):
    """What became of it, and what could not be carried over: one sentence each."""

    value: Record | StatusBlock
    lost: tuple[str, ...]


def record_of(block: StatusBlock, **header: Any) -> Converted:
    """The block as a record; its time is that of the first entry with a timestamp.  ``header`` sets fields of it."""
    lost: list[str] = []
    if not block.header.uncorrectable and not block.header.correctable:
        lost.append("the block says neither that an error is correctable nor uncorrectable")
    if block.header.raw_data_length or block.gap or block.raw_data:
        lost.append(f"{counted(len(block.raw_data), 'byte')} of raw data")
    if block.header.residue is not None:
        lost.append("reserved bits of the block's header")
    times = [t for e in block.entries if (t := getattr(e.header, "timestamp", None)) is not None]
    if any(t != times[0] for t in times) or (times and len(times) != len(block.entries)):
        lost.append("timestamps of entries: a record has one")
    bodies = []
    for index, (entry, body) in enumerate(block.entries):
        if entry.residue is not None:
            lost.append(f"bits of entries[{index}] that are reserved or not valid")
        descriptor = SectionDescriptor.blank(entry.section_type).model_copy(
            update={name: getattr(entry, name) for name in ("flags", "fru_id", "fru_text", "severity")}
        )
        bodies.append((body, descriptor))
    made = Record.of_bodies(bodies, **header)
    fields = {"severity": block.header.severity, "timestamp": times[0] if times else None}
    head = made.header.model_copy(update={name: v for name, v in fields.items() if name not in header})
    return Converted(made._replace(header=head), tuple(lost))


def block_of(record: Record) -> Converted:
    """The record as a block; every entry has the record's time."""
    lost = [
        f"{name} of the record"
        for name, value in (
            ("platform_id", record.header.platform_id), ("partition_id", record.header.partition_id),
            ("creator_id", record.header.creator_id.int), ("record_id", record.header.record_id),
            ("flags", record.header.flags), ("persistence_information", record.header.persistence_information),
            ("reserved bits", record.header.residue), ("bytes between the bodies", record.gaps),
        )
        if value not in (None, 0, ())
    ]  # fmt: skip
    entries = []
    for index, (descriptor, body) in enumerate(record.sections):
        if descriptor.residue is not None or descriptor.flags & ~_FLAGS:
            lost.append(f"bits of sections[{index}].descriptor that are reserved or not valid")
        same = {name: getattr(descriptor, name) for name in ("fru_id", "fru_text", "severity")}
        own = {"flags": SectionFlags(descriptor.flags & _FLAGS), "timestamp": record.header.timestamp}
        blank = DataEntry300(section_type=descriptor.section_type, error_data_length=len(body))
        entry = blank.model_copy(update=same | own)
        entries.append(Entry(entry, body))
    block = StatusBlock.of(entries, Severity(record.header.severity))
    return Converted(block, tuple(lost))


__all__ = ["Converted", "block_of", "record_of"]
