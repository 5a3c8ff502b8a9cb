"""The fields of decoded bytes, in words, each with its place; ``show`` prints them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from acpi.damage import DamagedBlock
from acpi.ghes import DataEntry300, Entry, ErrorStatusHeader, StatusBlock
from cper.construct_section import ConstructSection
from cper.guids import name_of
from cper.section import Section, section_class, section_form
from cper.wire import OpenEnum, OpenFlags, Struct, WireError
from cper.words import counted

if TYPE_CHECKING:
    from acpi.hest import Hest
    from acpi.stream import Item
    from cper.damage import DamagedRecord
    from cper.framed import FramedSection
    from cper.record import Record
    from cper.section import AnySection


class Field(NamedTuple):
    """One field of decoded bytes; ``bits``: a slice of the word at ``offset``; ``size`` 0: what a whole path is."""

    offset: int
    size: int
    path: str
    value: str
    bits: tuple[int, int] | None = None
    doc: str = ""


def shown(value: Any) -> str:
    """A value as people read it: names and numbers, addresses in hexadecimal."""
    if value is None:
        return "-"
    if isinstance(value, OpenEnum):
        return f"{value.plain} ({int(value)})" if value.known else f"{int(value):#x}"
    if isinstance(value, OpenFlags):
        return f"{value} ({int(value):#x})" if value else "0"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if value < 100 else f"{value} ({value:#x})" if value < 1 << 16 else f"{value:#x}"
    if isinstance(value, UUID):
        name = name_of(value)
        return f"{name} ({value})" if name else str(value)
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, str):
        return repr(value)
    return str(value)


def struct_fields(obj: Struct, base: int, prefix: str, limit: int | None = None) -> Iterator[Field]:
    """The fields of a structure that lies ``base`` bytes in; fields from ``limit`` bytes on are left out."""
    for row in obj.layout:
        if limit is not None and row.offset + row.size > limit:
            continue
        value: Any = obj
        for step in row.path.split("."):
            value = getattr(value, step, None) if step in getattr(type(value), "model_fields", {}) else ...
            if value is None or value is ...:
                break
        if isinstance(value, Struct):
            continue
        if value is ...:
            text = "" if row.reserved else "(from the fields below)"
        else:
            text = shown(value)
        yield Field(base + row.offset, row.size, f"{prefix}{row.path}", text, row.bits, row.doc)


def _body_fields(guid: UUID, body: bytes, base: int, prefix: str) -> Iterator[Field]:
    cls = section_class(guid)
    if cls is None:
        yield Field(base, len(body), f"{prefix}body", "no known layout")
        return
    try:
        section = section_form(cls, body).of_body(body)
    except ValueError as error:
        yield Field(base, 0, prefix.rstrip("."), str(error))
        head = cls if issubclass(cls, Section) else getattr(cls, "HEAD", None)
        if head is None:
            yield Field(base, len(body), f"{prefix}body", "")
        else:
            yield from partial_fields(head, body, base, prefix if head is cls else f"{prefix}head.")
        return
    if isinstance(section, ConstructSection):
        for at, size, name, value in section.fields():
            yield Field(base + at, size, f"{prefix}{name}", shown(value))
        return
    if not isinstance(section, Section):
        yield from _framed_fields(section, base, prefix)
        return
    yield from struct_fields(section, base, prefix, len(body))
    if len(body) > section.SIZE:
        yield Field(base + section.SIZE, len(body) - section.SIZE, f"{prefix}tail", "bytes past the section")


def partial_fields(kind: type[Struct], data: bytes, base: int, prefix: str) -> Iterator[Field]:
    """The fields of a structure of which only the first bytes are there."""
    try:
        yield from struct_fields(kind.decode(data[: kind.SIZE].ljust(kind.SIZE, b"\0")), base, prefix, len(data))
    except WireError:
        yield Field(base, len(data), f"{prefix}body", "")


def _framed_fields(section: FramedSection[Any], base: int, prefix: str) -> Iterator[Field]:
    for path, at, part in section.parts():
        if isinstance(part, Struct):
            yield from struct_fields(part, base + at, f"{prefix}{path}.")
        elif part:
            yield Field(base + at, len(part), f"{prefix}{path}", shown(part))


def reading_fields(item: Item) -> Iterator[Field]:
    """The fields of an item of a stream, as far as it can be read."""
    read = item.read()
    if isinstance(read, StatusBlock | DamagedBlock):
        yield from block_fields(read)
    elif read is not None:
        yield from record_fields(read)
    else:
        yield Field(0, len(item.data), str(item.kind), "")


def block_fields(block: StatusBlock | DamagedBlock, base: int = 0) -> Iterator[Field]:
    """The fields of a status block."""
    size = len(block.encode())
    yield Field(
        base, 0, "Generic Error Status Block", f"{size} bytes, {counted(len(block.entries), 'entry', 'entries')}"
    )
    if block.header is None:
        yield from partial_fields(ErrorStatusHeader, block.encode(), base, "header.")
        return
    yield from struct_fields(block.header, base, "header.")
    at = base + ErrorStatusHeader.SIZE
    for index, entry in enumerate(block.entries):
        yield from _entry_fields(entry, at, index)
        at += entry.header.SIZE + len(entry.body)
    behind = (block.rest,) if isinstance(block, DamagedBlock) else (block.gap, block.raw_data)
    names = (
        (("rest", "not read"),) if isinstance(block, DamagedBlock) else (("gap", "before raw data"), ("raw_data", ""))
    )
    for (name, text), data in zip(names, behind, strict=True):
        if data:
            yield Field(at, len(data), name, text)
        at += len(data)


def _entry_fields(entry: Entry, at: int, index: int) -> Iterator[Field]:
    name = f"entries[{index}]"
    cls = section_class(entry.header.section_type)
    form = "revision 3" if isinstance(entry.header, DataEntry300) else "before revision 3"
    yield Field(at, 0, name, f"Generic Error Data Entry, {form}")
    yield from struct_fields(entry.header, at, f"{name}.header.")
    yield Field(at + entry.header.SIZE, 0, f"{name}.section", cls.__name__ if cls else "no known layout")
    yield from _body_fields(entry.header.section_type, entry.body, at + entry.header.SIZE, f"{name}.section.")


def record_fields(record: Record | DamagedRecord) -> Iterator[Field]:
    """The fields of a whole CPER record."""
    from cper.record_header import RecordHeader, SectionDescriptor

    if record.header is None:
        yield Field(0, 0, "CPER record", "cut off inside its header")
        yield from partial_fields(RecordHeader, record.encode(), 0, "header.")
        return
    count = counted(len(record.sections), "section")
    yield Field(0, 0, "CPER record", f"{record.header.record_length} bytes, {count}")
    yield from struct_fields(record.header, 0, "header.")
    for index, (descriptor, body) in enumerate(record.sections):
        at, name = RecordHeader.SIZE + SectionDescriptor.SIZE * index, f"sections[{index}]"
        cls = section_class(descriptor.section_type)
        yield Field(at, 0, name, "")
        yield from struct_fields(descriptor, at, f"{name}.descriptor.")
        yield Field(descriptor.section_offset, 0, f"{name}.section", cls.__name__ if cls else "no known layout")
        if body is not None:
            yield from _body_fields(descriptor.section_type, body, descriptor.section_offset, f"{name}.section.")
    for index, gap in enumerate(record.gaps):
        yield Field(gap.offset, len(gap.data), f"gaps[{index}]", "bytes that no part claims")
    for index, text in enumerate(record.overlaps()):
        yield Field(0, 0, f"overlaps[{index}]", text)


def hest_fields(hest: Hest) -> Iterator[Field]:
    """The fields of a HEST."""
    from acpi.table import TableHeader

    yield Field(0, 0, "HEST", f"{hest.header.length} bytes, {counted(len(hest.sources), 'source')}")
    yield from struct_fields(hest.header, 0, "header.")
    yield Field(TableHeader.SIZE, 4, "count", shown(len(hest.sources)))
    for index, source in enumerate(hest.sources):
        at = hest.offset(index)
        yield Field(at, 0, f"sources[{index}]", type(source).__name__)
        if isinstance(source, Struct):
            yield from struct_fields(source, at, f"sources[{index}].")


def section_fields(cls: type[AnySection], body: bytes) -> Iterator[Field]:
    """The fields of a bare section."""
    yield Field(0, 0, cls.__name__, f"{counted(len(body), 'byte')}")
    yield from _body_fields(cls.GUID, body, 0, "section.")
