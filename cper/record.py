"""A whole CPER record (UEFI 2.10, N.2.1 and N.2.2): header, section descriptors, section bodies.

As with status blocks the frame is declared with construct (``RECORD``) and stands beside a hand-written loop
(``Record.decode``); both run the same vectors and report the same offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar
from uuid import UUID

import construct as c

from cper.common import SectionFlags, Severity, Timestamp
from cper.plain import hex_in, object_in, objects_in
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import (
    U16,
    U32,
    U64,
    DecodeError,
    EncodeError,
    Guid,
    OpenFlags,
    Reserved,
    Struct,
    TruncatedError,
    Valid,
    ValidationBits,
    WireError,
    Word,
    guid,
    text,
    u32,
)
from cper.wire._construct import Wire

if TYPE_CHECKING:
    from cper.section import AnySection

NIL = UUID(int=0)

NOTIFICATION_TYPES: dict[str, UUID] = {
    "cmc": UUID("2dce8bb1-bdd7-450e-b9ad-9cf4ebd4f890"),
    "cpe": UUID("4e292f96-d843-4a55-a8c2-d481f27ebeee"),
    "mce": UUID("e8f56ffe-919c-4cc5-ba88-65abe14913bb"),
    "pcie": UUID("cf93c01f-1a16-4dfc-b8bc-9c4daf67c104"),
    "init": UUID("cc5263e8-9308-454a-89d0-340bd39bc98e"),
    "nmi": UUID("5bad89ff-b7e6-42c9-814a-cf2485d6e98a"),
    "boot": UUID("3d61a466-ab40-409a-a698-f362d464b38f"),
    "dmar": UUID("667dd791-c6b3-4c27-8a6b-0f8e722deb41"),
    "sea": UUID("9a78788a-bbe8-11e4-809e-67611e5d46b0"),
    "sei": UUID("5c284c81-b0ae-4e87-a322-b04c85624323"),
    "pei": UUID("09a9d5ac-5204-4214-96e5-94992e752bcd"),
    "cxl": UUID("69293bc9-41df-49a3-b4bd-4fb0db3041f6"),
}
"""Notification Type of a record (Table N.1)."""


class RecordFlags(OpenFlags):
    """Flags of a record (N.2.1)."""

    RECOVERED = 1 << 0
    PREVIOUS_ERROR = 1 << 1
    SIMULATED = 1 << 2


class RecordHeader(Struct, size=128):
    """Record header (N.2.1, Table N.1)."""

    signature_start: Annotated[Literal[0x52455043], u32] = 0x52455043
    """ASCII ``CPER``."""
    revision: U16 = 0x0101
    """High byte major, low byte minor."""
    signature_end: Annotated[Literal[0xFFFFFFFF], u32] = 0xFFFFFFFF
    section_count: U16
    """Section descriptors that follow."""
    severity: Annotated[Severity, u32]
    """The worst of the sections'."""
    validation_bits: ClassVar[Word] = ValidationBits("I")
    record_length: U32
    """Bytes of the record: header, descriptors, bodies."""
    timestamp: Annotated[Timestamp | None, Valid(1)] = None
    platform_id: Annotated[UUID | None, guid, Valid(0)] = None
    partition_id: Annotated[UUID | None, guid, Valid(2)] = None
    creator_id: Guid = NIL
    notification_type: Guid = NOTIFICATION_TYPES["pei"]
    record_id: U64 = 0
    """Unique for its creator."""
    flags: Annotated[RecordFlags, u32] = RecordFlags(0)
    persistence_information: U64 = 0
    """The persistence layer's own."""
    reserved: ClassVar[Word] = Reserved(12)


class SectionDescriptor(Struct, size=72):
    """Section descriptor (N.2.2, Table N.3)."""

    section_offset: U32
    """Bytes from the start of the record to the body."""
    section_length: U32
    """Bytes of the body."""
    revision: U16 = 0x0100
    validation_bits: ClassVar[Word] = ValidationBits("B")
    reserved: ClassVar[Word] = Reserved(1)
    flags: Annotated[SectionFlags, u32] = SectionFlags(0)
    section_type: Guid
    fru_id: Annotated[UUID | None, guid, Valid(0)] = None
    """The field-replaceable unit."""
    severity: Annotated[Severity, u32] = Severity.RECOVERABLE
    fru_text: Annotated[str | None, text(20), Valid(1)] = None
    """The field-replaceable unit in words."""


_ONE = SectionDescriptor.SIZE
_RECORD_LENGTH = RecordHeader.at("record_length").offset
_OFFSET, _LENGTH = SectionDescriptor.at("section_offset").offset, SectionDescriptor.at("section_length").offset


class RecordSection(NamedTuple):
    """A descriptor and the body that it points to, as bytes; :meth:`section` reads the body."""

    descriptor: SectionDescriptor
    body: bytes

    def section(self) -> AnySection | bytes:
        """The body as its section class; as bytes where the type is unknown.  Raises TruncatedError, DecodeError."""
        return read_section(self.descriptor.section_type, self.body)


R = TypeVar("R", bound="Record")


class Record(NamedTuple):
    """A whole record.  ``image`` holds its bytes where bodies overlap, leave gaps or lie in another order."""

    header: RecordHeader
    sections: tuple[RecordSection, ...]
    image: bytes | None = None

    @classmethod
    def of(cls, sections: Iterable[tuple[AnySection, SectionDescriptor]] | Iterable[AnySection], **header: Any) -> Self:
        """A record of these sections, bodies back to back behind the descriptors; ``header`` sets fields of it."""
        parts = [s if isinstance(s, tuple) else (s, None) for s in sections]
        at = RecordHeader.SIZE + _ONE * len(parts)
        found = []
        for section, given in parts:
            body = section.encode()
            place = {"section_offset": at, "section_length": len(body), "section_type": section.GUID}
            found.append(RecordSection(given.model_copy(update=place) if given else SectionDescriptor(**place), body))
            at += len(body)
        worst = [Severity.FATAL, Severity.RECOVERABLE, Severity.CORRECTED, Severity.INFORMATIONAL]
        severity = min((s.descriptor.severity for s in found), key=worst.index, default=Severity.INFORMATIONAL)
        lengths = {"section_count": len(found), "record_length": at}
        return cls(RecordHeader(**({"severity": severity} | header | lengths)), tuple(found))

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the record at the start of ``data``; what lies behind its length is not looked at.

        Raises TruncatedError, DecodeError; the offset counts from the start of ``data``.
        """
        try:
            header = RecordHeader.decode(data)
        except WireError as error:
            raise error.within("Record", "header") from None
        _check_length(header, len(data))
        end = RecordHeader.SIZE + _ONE * header.section_count
        sections: list[RecordSection] = []
        left = header.record_length
        for index in range(header.section_count):
            at = RecordHeader.SIZE + _ONE * index
            descriptor = SectionDescriptor.decode(data, at)
            start, stop = _body(descriptor, header.record_length, index, at)
            left = _apart(left, descriptor, index, at)
            sections.append(RecordSection(descriptor, bytes(data[start:stop])))
        return _whole(cls, header, tuple(sections), bytes(data[: header.record_length]), end)

    def encode(self) -> bytes:
        """The record's bytes.  Raises EncodeError where its lengths contradict its parts."""
        if self.image is not None:
            return self.image
        end = RecordHeader.SIZE + sum(_ONE + len(s.body) for s in self.sections)
        if self.header.record_length != end or self.header.section_count != len(self.sections):
            raise EncodeError(
                f"{len(self.sections)} sections and {end} bytes, but the header says {self.header.section_count} and "
                f"{self.header.record_length}", structure="Record", path="header.record_length", offset=20,
            )  # fmt: skip
        head = [self.header.encode(), *(s.descriptor.encode() for s in self.sections)]
        return b"".join([*head, *(s.body for s in self.sections)])

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the record."""
        out: dict[str, Any] = {
            "header": self.header.plain(),
            "sections": [
                {"descriptor": s.descriptor.plain(), **plain_body(s.descriptor.section_type, s.body)}
                for s in self.sections
            ],
        }
        return out | ({"image": self.image.hex()} if self.image is not None else {})

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The record that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        items = objects_in(plain, "sections")
        if "image" in plain:
            return cls.decode(hex_in(plain, "image"))
        header = RecordHeader.of_plain(object_in(plain, "header"))
        sections = []
        for index, item in enumerate(items):
            try:
                descriptor = SectionDescriptor.of_plain(object_in(item, "descriptor"))
                sections.append(RecordSection(descriptor, body_of_plain(descriptor.section_type, item)))
            except ValueError as error:
                error.add_note(f"sections[{index}]")
                raise
        return cls(header, tuple(sections))


def _whole(cls: type[R], header: RecordHeader, sections: tuple[RecordSection, ...], raw: bytes, end: int) -> R:
    """Keep the bytes themselves unless the bodies lie back to back: then they follow from the parts."""
    for section in sections:
        if section.descriptor.section_offset != end:
            return cls(header, sections, raw)
        end += section.descriptor.section_length
    return cls(header, sections, None if end == header.record_length else raw)


def _check_length(header: RecordHeader, given: int) -> None:
    end = RecordHeader.SIZE + _ONE * header.section_count
    if header.record_length < end:
        raise DecodeError(
            f"{header.record_length} bytes cannot hold {header.section_count} sections: {end} are needed",
            structure="Record", path="header.record_length", offset=_RECORD_LENGTH,
        )  # fmt: skip
    if header.record_length > given:
        raise TruncatedError(
            f"{header.record_length} bytes needed, {given} given", structure="Record", path="header.record_length",
            offset=_RECORD_LENGTH,
        )  # fmt: skip


def _body(descriptor: SectionDescriptor, length: int, index: int, at: int) -> tuple[int, int]:
    start, stop = descriptor.section_offset, descriptor.section_offset + descriptor.section_length
    if start < RecordHeader.SIZE or start > length:
        raise DecodeError(
            f"{start:#x} is not between the header and the record's {length} bytes", structure="Record",
            path=f"sections[{index}].descriptor.section_offset", offset=at + _OFFSET,
        )  # fmt: skip
    if stop > length:
        raise TruncatedError(
            f"{descriptor.section_length} bytes needed, {length - start} given", structure="Record",
            path=f"sections[{index}].descriptor.section_length", offset=at + _LENGTH,
        )  # fmt: skip
    return start, stop


def _apart(left: int, descriptor: SectionDescriptor, index: int, at: int) -> int:
    """What is left of the record after this body: overlapping bodies would let a small record cost unbounded memory."""
    if descriptor.section_length > left:
        raise DecodeError(
            "the bodies overlap: together they are longer than the record",
            structure="Record",
            path=f"sections[{index}].descriptor.section_length",
            offset=at + _LENGTH,
        )
    return left - descriptor.section_length


class _Body(c.Construct):  # type: ignore[misc]
    """The body that a descriptor points to."""

    def _parse(self, stream: Any, context: Any, path: str) -> RecordSection:
        at = stream.tell()
        descriptor = Wire(SectionDescriptor)._parse(stream, context, path)
        back = stream.tell()
        start, stop = _body(descriptor, context.header.record_length, context._index, at)  # type: ignore[arg-type]
        context.left = _apart(context.get("left", context.header.record_length), descriptor, context._index, at)  # type: ignore[arg-type]
        stream.seek(start)
        body = stream.read(stop - start)
        stream.seek(back)
        return RecordSection(descriptor, body)  # type: ignore[arg-type]

    def _build(self, obj: RecordSection, stream: Any, context: Any, path: str) -> RecordSection:
        stream.write(obj.descriptor.encode())
        back = stream.tell()
        stream.seek(obj.descriptor.section_offset)
        stream.write(obj.body)
        stream.seek(back)
        return obj


class _Header(c.Construct):  # type: ignore[misc]
    def _parse(self, stream: Any, context: Any, path: str) -> Struct:
        try:
            header = Wire(RecordHeader)._parse(stream, context, path)
        except WireError as error:
            raise error.within("Record", "header") from None
        _check_length(header, c.stream_size(stream))  # type: ignore[arg-type]
        return header

    def _build(self, obj: RecordHeader, stream: Any, context: Any, path: str) -> RecordHeader:
        stream.write(obj.encode())
        return obj


RECORD = c.Struct("header" / _Header(), "sections" / c.Array(lambda context: context.header.section_count, _Body()))
"""The record as a construct declaration, to be embedded in declarations of one's own."""
