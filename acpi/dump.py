"""Tables as people have them: raw files, a directory such as /sys/firmware/acpi/tables, the text of ``acpidump``.

Everything here takes bytes and gives tables; who opens the files is not this module's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from acpi.bert import BootErrorRegion
from acpi.table import MAX_TABLE_SIZE, Rsdp, TableHeader, Xsdt
from acpi.tables import examine_table
from cper.wire import DecodeError, TruncatedError, WireError

MOST_TABLES = 4096
"""Tables of one file or directory."""
_RSDP = b"RSD PTR "
_PADDING = re.compile(rb"\0*")
_TITLE = re.compile(rb"(\S.{3}) @ 0x([0-9A-Fa-f]{1,16})\s*")
_LINE = re.compile(rb"\s+([0-9A-Fa-f]{4,8}): ((?:[0-9A-Fa-f]{2} ){1,16})")
_BOOT_ERRORS = "data/BERT"


class DumpedTable(NamedTuple):
    """A table as it was found."""

    signature: str
    data: bytes
    name: str = ""
    """Where it was found: the file's name, empty where there is none."""
    address: int | None = None
    """Guest physical address, where the dump tells it."""


def read_dump(data: bytes, name: str = "") -> list[DumpedTable]:
    """The tables of a file: ``acpidump`` text, or raw tables in a row, as firmware gets them (``etc/acpi/tables``).

    Zeros behind a table are padding.  Raises DecodeError, TruncatedError.
    """
    if _TITLE.match(data.lstrip(b"\r\n")[:64]):
        return read_acpidump(data, name)
    found, at = list[DumpedTable](), 0
    while at < len(data) or not found:
        if len(found) >= MOST_TABLES:
            raise DecodeError(
                f"more than {MOST_TABLES} tables", structure="Dump", path=f"tables[{len(found)}]", offset=at
            )
        size = _size(data, at, len(found))
        found.append(DumpedTable(_signature(data[at : at + 8]), bytes(data[at : at + size]), name))
        at = _PADDING.match(data, at + size).end()  # type: ignore[union-attr]  # it matches nothing too
    return found


def read_directory(files: Mapping[str, bytes]) -> list[DumpedTable]:
    """The tables of a directory, file name to content, in the order of the names.

    ``data/BERT`` is the boot error region, as Linux shows it; other files below ``data`` are left out.  Raises
    DecodeError, TruncatedError, with the file's name in the path.
    """
    found: list[DumpedTable] = []
    for name, data in sorted(files.items()):
        if name == _BOOT_ERRORS:
            found.append(DumpedTable("BERT", data, name))
        elif not name.startswith(("data/", "dynamic/data/")):
            try:
                found += read_dump(data, name)
            except WireError as error:
                raise error.within("Directory", name) from None
    return found


def read_acpidump(text: bytes, name: str = "") -> list[DumpedTable]:
    """The tables of ``acpidump``'s text.  Raises DecodeError, with the line in its path."""
    found: list[DumpedTable] = []
    title: tuple[str, int] | None = None
    raw = bytearray()

    def finish() -> None:
        if title is not None:
            found.append(DumpedTable(title[0], bytes(raw), name, title[1]))
            raw.clear()

    for number, line in enumerate(text.splitlines(), 1):
        if match := _TITLE.fullmatch(line):
            finish()
            title = match[1].decode("latin-1"), int(match[2], 16)
            if len(found) >= MOST_TABLES:
                raise _bad(f"more than {MOST_TABLES} tables", number)
        elif match := _LINE.match(line):
            if title is None:
                raise _bad("bytes before the first table's name", number)
            if int(match[1], 16) != len(raw):
                raise _bad(f"offset {int(match[1], 16):#x}, but {len(raw):#x} bytes came before", number)
            raw += bytes.fromhex(match[2].decode())
            if len(raw) > MAX_TABLE_SIZE:
                raise _bad(f"the table is larger than {MAX_TABLE_SIZE} bytes", number)
        elif line.strip():
            raise _bad("neither a table's name nor its bytes", number)
    finish()
    return found


def plain_table(table: DumpedTable) -> dict[str, Any]:
    """What JSON holds of a table: its class's ``plain``, and ``error`` where it cannot be read to its end.

    A table that no class reads is its header and its body in hexadecimal.  Never raises for bad bytes.
    """
    try:
        return {"signature": table.signature, **_plain(table)}
    except WireError as error:
        return {"signature": table.signature, "data": table.data.hex(), "error": str(error)}


def _plain(table: DumpedTable) -> dict[str, Any]:
    if table.name == _BOOT_ERRORS:
        return BootErrorRegion.decode(table.data).plain()
    if table.data[:8] == _RSDP:
        return Rsdp.decode(table.data.ljust(Rsdp.SIZE, b"\0")).plain()
    if table.data[:4] == b"XSDT":
        header, addresses = Xsdt.parse(table.data)
        return {"header": header.plain(), "addresses": list(addresses)}
    found, error = examine_table(table.data)
    return found.plain() | ({"error": str(error)} if error is not None else {})


def _size(data: bytes, at: int, index: int) -> int:
    """Bytes of the table at ``at``.  Raises DecodeError, TruncatedError."""
    path = f"tables[{index}]"
    if data[at : at + 8] == _RSDP:
        return min(Rsdp.SIZE if len(data) > at + 15 and data[at + 15] >= 2 else 20, len(data) - at)
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    if len(data) - at < TableHeader.SIZE:
        raise TruncatedError(
            f"{TableHeader.SIZE} bytes needed, {len(data) - at} given", structure="Dump", path=path, offset=at
        )
    if not TableHeader.SIZE <= length <= MAX_TABLE_SIZE:
        raise DecodeError(
            f"{length} bytes is not between {TableHeader.SIZE} and {MAX_TABLE_SIZE}", structure="Dump",
            path=f"{path}.length", offset=at + 4,
        )  # fmt: skip
    if length > len(data) - at:
        raise TruncatedError(
            f"{length} bytes needed, {len(data) - at} given", structure="Dump", path=f"{path}.length", offset=at + 4
        )
    return length


def _signature(start: bytes) -> str:
    return "RSDP" if start == _RSDP else start[:4].decode("latin-1")


def _bad(reason: str, line: int) -> DecodeError:
    return DecodeError(reason, structure="acpidump", path=f"line {line}")


__all__ = ["DumpedTable", "plain_table", "read_acpidump", "read_directory", "read_dump"]
