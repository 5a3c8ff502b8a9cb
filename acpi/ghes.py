"""Generic Error Status Block and Data Entry (ACPI 6.5, 18.3.2.7.1): what carries CPER sections to a guest.

The frame is declared twice: ``STATUS_BLOCK`` with construct, and a hand-written loop, ``StatusBlock.decode``, for the
path that every error takes.  Both run the same vectors and the same hostile inputs and report the same offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self

import construct as c

from acpi.data_entry import DataEntry201, DataEntry300, entry_class
from acpi.entries import entry_places, too_long, too_short
from cper.common import Severity
from cper.plain import hex_in, number_in, object_in, objects_in
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import U32, Bits, DecodeError, EncodeError, Struct, TruncatedError, Word, u32
from cper.wire._construct import Wire

if TYPE_CHECKING:
    from cper.section import AnySection

_REVISION = DataEntry201.at("revision").offset
_SMALLEST = DataEntry201.SIZE
_new = tuple.__new__  # of a NamedTuple, on the way of every error: half of what a call of the class costs
MAX_BLOCK_SIZE = 65536
"""Bytes; Linux reads no more of a block (``ghes_new`` clamps the length)."""


class ErrorStatusHeader(Struct, size=20):
    """Header of a Generic Error Status Block.  ``entry_count`` is a hint (QEMU leaves it 0): ``data_length`` rules."""

    block_status: ClassVar[Word] = Word("I")
    uncorrectable: Annotated[bool, Bits("block_status", 0, 1)] = False
    correctable: Annotated[bool, Bits("block_status", 1, 2)] = False
    multiple_uncorrectable: Annotated[bool, Bits("block_status", 2, 3)] = False
    multiple_correctable: Annotated[bool, Bits("block_status", 3, 4)] = False
    entry_count: Annotated[int, Bits("block_status", 4, 14)] = 0
    raw_data_offset: U32 = 0
    """Bytes from the start of the block."""
    raw_data_length: U32 = 0
    """Bytes."""
    data_length: U32 = 0
    """Bytes of all data entries, their sections included."""
    severity: Annotated[Severity, u32] = Severity.RECOVERABLE


class Entry(NamedTuple):
    """A data entry and the section body behind it, as bytes; :meth:`section` reads the body."""

    header: DataEntry201
    body: bytes

    def section(self) -> AnySection | bytes:
        """The body as its section class; as bytes where the type is unknown.  Raises TruncatedError, DecodeError."""
        return read_section(self.header.section_type, self.body)

    @classmethod
    def of(cls, section: AnySection, **header: Any) -> Self:
        """An entry of revision 3 around ``section``; ``header`` sets fields of the entry."""
        body = section.encode()
        return cls(DataEntry300(section_type=section.GUID, error_data_length=len(body), **header), body)


class StatusBlock(NamedTuple):
    """A whole block.  ``gap`` and ``raw_data`` are what lies behind the entries up to the end of the raw data."""

    header: ErrorStatusHeader
    entries: tuple[Entry, ...]
    gap: bytes = b""
    raw_data: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the encoded block."""
        return 20 + self.header.data_length + len(self.gap) + len(self.raw_data)

    @classmethod
    def of(cls, entries: Iterable[Entry], severity: Severity = Severity.RECOVERABLE, **header: Any) -> Self:
        """A block of these entries, with lengths, count and status bits derived from them and ``severity``."""
        found = tuple(entries)
        bits = {"correctable" if severity == Severity.CORRECTED else "uncorrectable": True}
        if len(found) > 1:
            bits["multiple_" + next(iter(bits))] = True
        length = sum(e.header.SIZE + len(e.body) for e in found)
        count = {"entry_count": min(len(found), 0x3FF)}
        return cls(ErrorStatusHeader(**(bits | count | header), data_length=length, severity=severity), found)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, header: ErrorStatusHeader | None = None) -> Self:
        """Read the block at the start of ``data``; what lies behind it is not looked at.

        ``header``: its header, where it was read before.

        The entries must fill the data length exactly, as ``cper_estatus_check`` demands.  Raises TruncatedError,
        DecodeError; the offset counts from the start of ``data``.
        """
        if header is None:
            header = ErrorStatusHeader.decode(data)
        places = entry_places(data, header.data_length)
        entries = tuple([
            _new(Entry, (front.form.decode(data, at), bytes(data[body:end]))) for front, at, body, end in places
        ])  # fmt: skip
        if not header.raw_data_length:
            return _new(cls, (header, entries, b"", b""))
        end = 20 + header.data_length
        gap, raw = raw_data_place(header, end, len(data))
        return cls(header, entries, bytes(data[end:gap]), bytes(data[gap:raw]))

    def encode(self) -> bytes:
        """The block's bytes.  Raises EncodeError where its lengths contradict its parts."""
        length = sum(e.header.SIZE + len(e.body) for e in self.entries)
        if length != self.header.data_length:
            raise EncodeError(
                f"entries have {length} bytes, not {self.header.data_length}", structure="StatusBlock",
                path="header.data_length", offset=12,
            )  # fmt: skip
        parts = [self.header.encode()]
        for index, entry in enumerate(self.entries):
            if entry.header.error_data_length != len(entry.body):
                raise EncodeError(
                    f"the section has {len(entry.body)} bytes, not {entry.header.error_data_length}",
                    structure="StatusBlock", path=f"entries[{index}].header.error_data_length",
                )  # fmt: skip
            parts += [entry.header.encode(), entry.body]
        return b"".join([*parts, self.gap, self.raw_data])

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the block."""
        out: dict[str, Any] = {
            "header": self.header.plain(),
            "entries": [
                {"header": e.header.plain(), **plain_body(e.header.section_type, e.body)} for e in self.entries
            ],
        }
        if self.gap:
            out["gap"] = self.gap.hex()
        if self.raw_data:
            out["raw_data"] = self.raw_data.hex()
        return out

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The block that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        header = ErrorStatusHeader.of_plain(object_in(plain, "header"))
        entries = []
        for index, item in enumerate(objects_in(plain, "entries")):
            try:
                head = object_in(item, "header")
                kind = entry_class(number_in(head, "revision", 0x0300))
                entry = kind.of_plain(head)
                entries.append(Entry(entry, body_of_plain(entry.section_type, item)))
            except ValueError as error:
                error.add_note(f"entries[{index}]")
                raise
        return cls(header, tuple(entries), hex_in(plain, "gap"), hex_in(plain, "raw_data"))


def raw_data_place(header: ErrorStatusHeader, end: int, length: int) -> tuple[int, int]:
    """Where the raw data begins and ends (18.3.2.7.1: behind the entries), in a block of ``length`` bytes whose entries
    end at ``end``.  Raises TruncatedError, DecodeError."""
    start = header.raw_data_offset
    if start < end:
        raise DecodeError(
            f"{start:#x} lies inside the {end} bytes before it", structure="StatusBlock", path="header.raw_data_offset",
            offset=4,
        )  # fmt: skip
    if start + header.raw_data_length > length:
        raise TruncatedError(
            f"{start + header.raw_data_length} bytes needed, {length} given", structure="StatusBlock",
            path="header.raw_data_length", offset=8,
        )  # fmt: skip
    return start, start + header.raw_data_length


class _Entries(c.Construct):  # type: ignore[misc]
    """Entries up to the end that ``data_length`` gives; never more, never fewer."""

    def _parse(self, stream: Any, context: Any, path: str) -> list[Entry]:
        end = 20 + context.header.data_length
        entries: list[Entry] = []
        while (at := stream.tell()) < end:
            if end - at < _SMALLEST:
                raise too_short(_SMALLEST, end - at, len(entries), at)
            stream.seek(at + _REVISION)
            kind = entry_class(int.from_bytes(stream.read(2), "little"))
            stream.seek(at)
            if end - at < kind.SIZE:
                raise too_short(kind.SIZE, end - at, len(entries), at)
            header = Wire(kind)._parse(stream, context, path)
            left = end - stream.tell()
            if header.error_data_length > left:  # type: ignore[attr-defined]
                raise too_long(header.error_data_length, left, len(entries), at)  # type: ignore[attr-defined]
            entries.append(Entry(header, stream.read(header.error_data_length)))  # type: ignore[arg-type, attr-defined]
        return entries

    def _build(self, obj: list[Entry], stream: Any, context: Any, path: str) -> list[Entry]:
        for entry in obj:
            stream.write(entry.header.encode() + entry.body)
        return obj


class _Behind(c.Construct):  # type: ignore[misc]
    """Gap and raw data behind the entries, where the header says that there are any."""

    def _parse(self, stream: Any, context: Any, path: str) -> tuple[bytes, bytes]:
        if not context.header.raw_data_length:
            return b"", b""
        end = stream.tell()
        start, stop = raw_data_place(context.header, end, c.stream_size(stream))
        return stream.read(start - end), stream.read(stop - start)

    def _build(self, obj: tuple[bytes, bytes], stream: Any, context: Any, path: str) -> tuple[bytes, bytes]:
        stream.write(b"".join(obj))
        return obj


def _fits(header: ErrorStatusHeader, context: Any) -> None:
    end, length = 20 + header.data_length, c.stream_size(context._io)
    if end > length:
        raise TruncatedError(
            f"{end} bytes needed, {length} given", structure="StatusBlock", path="header.data_length", offset=12
        )


STATUS_BLOCK = c.Struct("header" / (Wire(ErrorStatusHeader) * _fits), "entries" / _Entries(), "behind" / _Behind())
"""The block as a construct declaration, to be embedded in declarations of one's own."""

__all__ = ["STATUS_BLOCK", "DataEntry201", "DataEntry300", "Entry", "ErrorStatusHeader", "StatusBlock"]
