"""Where the `cper` commands take bytes from, what is wrong with them, and the sections that the user brings along."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from vmm_ras.cli.common import read_bytes

if TYPE_CHECKING:
    from acpi.stream import Item
    from cper.wire import WireError

CHUNK = 1 << 20
"""Bytes of a stream that are read at once."""

Own = Annotated[
    list[Path] | None,
    typer.Option("--section", metavar="FILE.py", help="Python file with section types of your own; may be repeated."),
]


class Format(str, Enum):
    """Shapes of JSON."""

    own = "own"
    libcper = "libcper"


Bare = Annotated[str | None, typer.Option("--type", metavar="SECTION", help="The file is a bare section of this type.")]
JsonFormat = Annotated[
    Format, typer.Option("--format", help="Shape of the JSON: our own, or libcper's (whole records only).")
]


def libcper_document(item: Item) -> dict[str, Any]:
    """An item in libcper's shape, a status block as a record; what is lost is told.  Raises ValueError."""
    from acpi.conversion import record_of
    from acpi.ghes import StatusBlock
    from cper.libcper.record import of_record
    from cper.record import Record

    if item.fault is not None:
        raise item.fault
    read, lost = item.read(), tuple[str, ...]()
    if isinstance(read, StatusBlock):
        read, lost = record_of(read)
    assert isinstance(read, Record)
    for note in (*lost, *(["bytes between the bodies"] if read.gaps else []), *read.overlaps()):
        print(f"note: not carried over at {item.offset:#x}: {note}", file=sys.stderr)
    return of_record(read)


def load_sections(files: Iterable[Path] | None) -> None:
    """Make known the section types of installed plug-ins and of these files.  Raises InputError."""
    from vmm_ras.cli.own_sections import find_plugins, load

    find_plugins()
    for file in files or ():
        load(file)


def read_data(file: Path) -> bytes:
    """The bytes of a file, whichever form it comes in.  Raises InputError."""
    from cper.text_form import of_text
    from vmm_ras.errors import InputError

    try:
        return of_text(read_bytes(file))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None


def read_items(file: Path) -> list[Item]:
    """The items of a file, whichever form it comes in; at least one.  Raises InputError."""
    from acpi.ghes import ErrorStatusHeader
    from acpi.stream import Item, Kind, items
    from vmm_ras.errors import InputError

    data = read_data(file)
    found = list(items([data]))
    if found and found[0].fault and _is_text(data):
        raise InputError(f"{file}: text that is neither hexadecimal, a dump of it (xxd, hexdump -C) nor Base64")
    if any(item.kind is not Kind.PADDING for item in found):
        return found
    size = ErrorStatusHeader.SIZE  # a block without status and without entries is all zeroes
    first, rest = data[:size], data[size:]
    fault = None
    try:
        ErrorStatusHeader.decode(first)
    except ValueError as error:
        fault = error
    block = Item(0, Kind.STATUS_BLOCK, first, fault)  # type: ignore[arg-type]
    return [block, *([Item(size, Kind.PADDING, rest)] if rest else [])]


def _is_text(data: bytes) -> bool:
    """Whether it is printable and does not begin as a record does; no whole block is."""
    try:
        return not b"CPER".startswith(data[:4]) and not data.translate(None, _PRINTABLE) and bool(data.decode())
    except UnicodeDecodeError:
        return False


_PRINTABLE = bytes({*range(0x20, 0x100), *b"\t\r\n"} - {0x7F})


def chunks(stream: BinaryIO) -> Iterator[bytes]:
    """What a stream holds, piece by piece."""
    read = getattr(stream, "read1", stream.read)  # of a pipe: what is there
    while chunk := read(CHUNK):
        yield chunk


def faults_of(item: Item) -> list[WireError]:
    """What is wrong with an item."""
    from acpi import damage
    from acpi.damage import DamagedBlock
    from acpi.ghes import StatusBlock

    read = item.read()
    if read is None:
        return [item.fault] if item.fault else []
    if isinstance(read, StatusBlock):
        return damage.faults_of(read)
    if not isinstance(read, DamagedBlock):
        from cper.damage import DamagedRecord, faults_of

        if not isinstance(read, DamagedRecord):
            return faults_of(read)
    return list(read.faults) or ([item.fault] if item.fault else [])


def complain(found: Iterable[Item]) -> None:
    """One line about what could not be read, and exit with 1; nothing where all could."""
    all_faults = [(item, fault) for item in found for fault in faults_of(item)]
    if not all_faults:
        return
    item, fault = all_faults[0]
    where = f" (of the item at {item.offset:#x})" if item.offset else ""
    more = f"; {len(all_faults) - 1} more" if len(all_faults) > 1 else ""
    print(f"vmm-ras: {fault}{where}{more}".replace("\n", " "), file=sys.stderr)
    raise typer.Exit(1)


def explained(error: Exception, file: Path) -> str:
    """A line about JSON that cannot be encoded."""
    from pydantic import ValidationError

    from vmm_ras.errors import path_text

    note = "".join(f"{n}: " for n in getattr(error, "__notes__", ()))
    if not isinstance(error, ValidationError):
        return f"{file}: {note}{error}" if note else str(error)
    first: dict[str, Any] = dict(error.errors(include_url=False)[0])
    where = path_text(first["loc"])
    return f"{file}: {note}{where}{': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
