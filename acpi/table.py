"""What all tables share (ACPI 6.5, 5.2.5 to 5.2.8): RSDP, table header, checksum, XSDT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import construct as c

from cper.wire import U8, U32, U64, Cell, DecodeError, Struct, TruncatedError, WireError, text

MAX_TABLE_SIZE = 16 << 20
"""Bytes; a longer length in a header is taken for damage, so that no untrusted length drives unbounded work."""


def checksum(data: bytes) -> int:
    """The byte that makes the sum of ``data`` and itself 0 modulo 256 (5.2.6)."""
    return -sum(data) & 0xFF


def _ascii(size: int) -> Cell:
    """Text that is not NUL-filled by nature (QEMU pads with spaces): every byte is kept."""
    return Cell(
        f"{size}s",
        load=lambda raw: raw.decode("latin-1"),
        dump=lambda value: text(size).dump(value),  # type: ignore[misc]
    )


class TableHeader(Struct, size=36):
    """System description table header (5.2.6)."""

    signature: Annotated[str, _ascii(4)]
    length: U32
    """Bytes of the whole table, header included."""
    revision: U8
    checksum: U8 = 0
    oem_id: Annotated[str, _ascii(6)] = "VMMRAS"
    oem_table_id: Annotated[str, _ascii(8)] = "VMMRAS  "
    oem_revision: U32 = 1
    creator_id: Annotated[str, _ascii(4)] = "VRAS"
    creator_revision: U32 = 1


class Rsdp(Struct, size=36):
    """Root System Description Pointer, revision 2 (5.2.5.3)."""

    signature: Annotated[Literal["RSD PTR "], _ascii(8)] = "RSD PTR "
    checksum: U8 = 0
    """Makes the first 20 bytes sum up to 0."""
    oem_id: Annotated[str, _ascii(6)] = "VMMRAS"
    revision: U8 = 2
    rsdt_address: U32 = 0
    length: U32 = 36
    xsdt_address: U64 = 0
    extended_checksum: U8 = 0
    """Makes all 36 bytes sum up to 0."""
    reserved: Annotated[bytes, Cell("3s", plain=lambda raw: raw.hex())] = b"\0\0\0"

    def sealed(self) -> Self:
        """The same with both checksums right."""
        blank = self.model_copy(update={"checksum": 0, "extended_checksum": 0})
        first = blank.model_copy(update={"checksum": checksum(blank.encode()[:20])})
        return first.model_copy(update={"extended_checksum": checksum(first.encode())})


def seal(header: TableHeader, body: bytes) -> bytes:
    """A whole table: ``header`` with length and checksum set right, then ``body``."""
    length = header.SIZE + len(body)
    raw = header.model_copy(update={"length": length, "checksum": 0}).encode() + body
    at = header.at("checksum").offset
    return raw[:at] + bytes([checksum(raw)]) + raw[at + 1 :]


def open_table(data: bytes, signature: str | None = None, *, structure: str = "Table") -> tuple[TableHeader, bytes]:
    """Split a table into header and the body that its length covers.

    Raises TruncatedError, or DecodeError for another ``signature`` or an impossible length.  The checksum is not looked
    at: a reader of broken firmware wants to see the table; ``checksum(data) == 0`` tells.
    """
    try:
        header = TableHeader.decode(data)
    except WireError as error:
        raise error.within(structure, "header") from None
    if signature is not None and header.signature != signature:
        raise DecodeError(
            f"expected {signature!r}, found {header.signature!r}",
            structure=structure,
            path="header.signature",
            offset=0,
        )
    at = header.at("length").offset
    if not header.SIZE <= header.length <= MAX_TABLE_SIZE:
        raise DecodeError(
            f"{header.length} bytes is not between {header.SIZE} and {MAX_TABLE_SIZE}",
            structure=structure, path="header.length", offset=at,
        )  # fmt: skip
    if header.length > len(data):
        raise TruncatedError(
            f"{header.length} bytes needed, {len(data)} given", structure=structure, path="header.length", offset=at
        )
    return header, data[header.SIZE : header.length]


class Xsdt:
    """Extended System Description Table (5.2.8): the 64-bit addresses of the other tables."""

    @staticmethod
    def build(addresses: Sequence[int], header: TableHeader | None = None) -> bytes:
        """The table.  ``header`` gives the OEM's words."""
        body: bytes = c.Array(len(addresses), c.Int64ul).build(list(addresses))
        return seal(header or TableHeader(signature="XSDT", length=0, revision=1), body)

    @staticmethod
    def parse(data: bytes) -> tuple[TableHeader, tuple[int, ...]]:
        """Header and addresses.  Raises DecodeError, TruncatedError."""
        header, body = open_table(data, "XSDT", structure="Xsdt")
        if len(body) % 8:
            raise DecodeError(
                f"{len(body)} bytes are no whole number of 8-byte entries", structure="Xsdt", path="entries",
                offset=header.SIZE,
            )  # fmt: skip
        return header, tuple(c.Array(len(body) // 8, c.Int64ul).parse(body))
