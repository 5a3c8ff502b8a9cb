"""What people see of bytes: a table of fields, and a hex dump in which each field can be found by its colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from acpi.ghes import DataEntry300, Entry, ErrorStatusHeader, StatusBlock
from acpi.table import TableHeader
from cper.section import Section, section_class
from cper.wire import OpenEnum, OpenFlags, Struct

if TYPE_CHECKING:
    from rich.console import Console

    from acpi.hest import Hest
    from cper.framed import FramedSection
    from cper.record import Record
    from cper.section import AnySection

COLOURS = ("cyan", "green", "yellow", "magenta", "bright_blue", "bright_red")


class Field(NamedTuple):
    """One field of decoded bytes; ``size`` 0 is a heading, ``bits`` a slice of the word at ``offset``."""

    offset: int
    size: int
    path: str
    value: str
    bits: tuple[int, int] | None = None


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
        yield Field(base + row.offset, row.size, f"{prefix}{row.path}", text, row.bits)


def _body_fields(cls: type[AnySection] | None, body: bytes, base: int, prefix: str) -> Iterator[Field]:
    if cls is None:
        yield Field(base, len(body), f"{prefix}body", "no known section type")
        return
    try:
        section = cls.of_body(body)
    except ValueError as error:
        yield Field(base, len(body), f"{prefix}body", str(error))
        return
    if not isinstance(section, Section):
        yield from _framed_fields(section, base, prefix)
        return
    yield from struct_fields(section, base, prefix, len(body))
    if len(body) > section.SIZE:
        yield Field(base + section.SIZE, len(body) - section.SIZE, f"{prefix}tail", "bytes past the section")


def _framed_fields(section: FramedSection[Any], base: int, prefix: str) -> Iterator[Field]:
    for path, at, part in section.parts():
        if isinstance(part, Struct):
            yield from struct_fields(part, base + at, f"{prefix}{path}.")
        elif part:
            yield Field(base + at, len(part), f"{prefix}{path}", shown(part))


def block_fields(block: StatusBlock, base: int = 0) -> Iterator[Field]:
    """The fields of a status block."""
    yield Field(base, 0, "Generic Error Status Block", f"{block.size} bytes, {len(block.entries)} entries")
    yield from struct_fields(block.header, base, "header.")
    at = base + ErrorStatusHeader.SIZE
    for index, entry in enumerate(block.entries):
        yield from _entry_fields(entry, at, index)
        at += entry.header.SIZE + len(entry.body)
    if block.gap:
        yield Field(at, len(block.gap), "gap", "bytes before the raw data")
    if block.raw_data:
        yield Field(at + len(block.gap), len(block.raw_data), "raw_data", "")


def _entry_fields(entry: Entry, at: int, index: int) -> Iterator[Field]:
    name = f"entries[{index}]"
    cls = section_class(entry.header.section_type)
    form = "revision 3" if isinstance(entry.header, DataEntry300) else "before revision 3"
    yield Field(at, 0, f"{name}: Generic Error Data Entry, {form}", cls.__name__ if cls else "unknown section type")
    yield from struct_fields(entry.header, at, f"{name}.")
    yield from _body_fields(cls, entry.body, at + entry.header.SIZE, f"{name}.section.")


def record_fields(record: Record) -> Iterator[Field]:
    """The fields of a whole CPER record."""
    from cper.record import RecordHeader, SectionDescriptor

    yield Field(0, 0, "CPER record", f"{record.header.record_length} bytes, {len(record.sections)} sections")
    yield from struct_fields(record.header, 0, "header.")
    for index, section in enumerate(record.sections):
        at, name = RecordHeader.SIZE + SectionDescriptor.SIZE * index, f"sections[{index}]"
        cls = section_class(section.descriptor.section_type)
        yield Field(at, 0, name, cls.__name__ if cls else "unknown section type")
        yield from struct_fields(section.descriptor, at, f"{name}.descriptor.")
    for index, section in enumerate(record.sections):
        cls = section_class(section.descriptor.section_type)
        name = f"sections[{index}].section."
        yield from _body_fields(cls, section.body, section.descriptor.section_offset, name)


def hest_fields(hest: Hest) -> Iterator[Field]:
    """The fields of a HEST."""
    yield Field(0, 0, "HEST", f"{hest.header.length} bytes, {len(hest.sources)} sources")
    yield from struct_fields(hest.header, 0, "header.")
    yield Field(TableHeader.SIZE, 4, "count", shown(len(hest.sources)))
    for index, source in enumerate(hest.sources):
        at = hest.offset(index)
        yield Field(at, 0, f"sources[{index}]", type(source).__name__)
        if isinstance(source, Struct):
            yield from struct_fields(source, at, f"sources[{index}].")


def section_fields(section: AnySection) -> Iterator[Field]:
    """The fields of a bare section."""
    if isinstance(section, Section):
        yield Field(0, 0, type(section).__name__, f"{section.SIZE} bytes")
        yield from struct_fields(section, 0, "")
    else:
        yield Field(0, 0, type(section).__name__, f"{len(section.encode())} bytes")
        yield from _framed_fields(section, 0, "")


def render(console: Console, data: bytes, fields: Iterable[Field], *, every: bool = False) -> None:
    """Print the fields as a table and the bytes as a dump in the same colours.  ``every``: also what is not valid."""
    from rich.table import Table
    from rich.text import Text

    colour: dict[int, str] = {}
    names: dict[int, list[tuple[str, str]]] = {}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head, justify in (("Offset", "right"), ("Bytes", "right"), ("Field", "left"), ("Value", "left")):
        table.add_column(head, justify=justify, overflow="fold", no_wrap=head != "Value")  # type: ignore[arg-type]
    turn = 0
    for field in fields:
        if not field.size:
            table.add_row(f"{field.offset:#06x}", "", Text(field.path, style="bold"), Text(field.value, style="bold"))
            continue
        style = colour.get(field.offset)
        if style is None or not field.bits:
            style = COLOURS[turn % len(COLOURS)]
            turn += 1
        if not any(field.offset + n in colour for n in range(field.size)):
            colour.update(dict.fromkeys(range(field.offset, field.offset + field.size), style))
            names.setdefault(field.offset // 16, []).append((field.path, style))
        if field.value in {"-", ""} and not every:
            continue
        where = f"[{field.bits[1]}:{field.bits[0]}]" if field.bits else ""
        table.add_row(f"{field.offset:#06x}", str(field.size), Text(field.path + where, style=style), field.value)
    console.print(table)
    console.print()
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        if not any(row) and start and not any(data[start - 16 : start]) and start + 16 < len(data):
            if start < 32 or any(data[start - 32 : start - 16]):
                console.print("  *", style="dim")
            continue
        line = Text(f"{start:06x}  ", style="dim")
        for n, byte in enumerate(row):
            line.append(
                f"{byte:02x}", style=colour.get(start + n, "dim") if byte else f"dim {colour.get(start + n, '')}"
            )
            line.append("  " if n == 7 else " ")
        line.append("   " * (16 - len(row)) + " ")
        for n, (name, style) in enumerate(names.get(start // 16, ())):
            line.append(", " if n else "")
            line.append(name.rpartition(".")[2], style=style)
        console.print(line, soft_wrap=True)
