"""A whole CPER record (UEFI 2.10, N.2.1 and N.2.2): header, section descriptors, section bodies.

The bodies may lie anywhere behind the header, also over each other; bytes that belong to no part are gaps.  The frame
is declared once more with construct (``cper.record_frame``); both run the same vectors and report the same offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import UUID

from cper.common import Severity
from cper.places import Gap, apart, body_span, check_length, overlapping, put_together, uncovered
from cper.plain import object_in, objects_in
from cper.record_header import NIL, NOTIFICATION_TYPES, RecordFlags, RecordHeader, SectionDescriptor
from cper.section import body_of_plain, plain_at, plain_body, read_section
from cper.wire import EncodeError, WireError
from cper.words import counted

if TYPE_CHECKING:
    from cper.section import AnySection

_HEAD, _ONE = RecordHeader.SIZE, SectionDescriptor.SIZE
_RECORD_LENGTH = RecordHeader.at("record_length").offset
_LENGTH = SectionDescriptor.at("section_length").offset
_TYPE = SectionDescriptor.at("section_type").offset
_frame = RecordHeader.reader("record_length", "section_count", "signature_start", "signature_end")
_place = SectionDescriptor.reader("section_offset", "section_length")


class RecordSection(NamedTuple):
    """A descriptor and the body that it points to, as bytes; :meth:`section` reads the body."""

    descriptor: SectionDescriptor
    body: bytes

    def section(self) -> AnySection | bytes:
        """The body as its section class; as bytes where the type is unknown.  Raises TruncatedError, DecodeError."""
        return read_section(self.descriptor.section_type, self.body)


class Record(NamedTuple):
    """A whole record.  ``gaps`` are its bytes that neither header, descriptors nor bodies hold."""

    header: RecordHeader
    sections: tuple[RecordSection, ...]
    gaps: tuple[Gap, ...] = ()

    @classmethod
    def of(cls, sections: Iterable[tuple[AnySection, SectionDescriptor]] | Iterable[AnySection], **header: Any) -> Self:
        """A record of these sections, bodies back to back behind the descriptors; ``header`` sets fields of it."""
        parts = [s if isinstance(s, tuple) else (s, None) for s in sections]
        return cls.of_bodies([(s.encode(), given or SectionDescriptor.blank(s.GUID)) for s, given in parts], **header)

    @classmethod
    def of_bodies(cls, bodies: Iterable[tuple[bytes, SectionDescriptor]], **header: Any) -> Self:
        """The same from bytes; offset and length in the descriptors are set anew."""
        parts = list(bodies)
        at = RecordHeader.SIZE + _ONE * len(parts)
        found = []
        for body, given in parts:
            place = {"section_offset": at, "section_length": len(body)}
            found.append(RecordSection(given.model_copy(update=place), body))
            at += len(body)
        severity = min((s.descriptor.severity for s in found), key=_rank, default=Severity.INFORMATIONAL)
        lengths = {"section_count": len(found), "record_length": at}
        return cls(RecordHeader(**({"severity": severity} | header | lengths)), tuple(found))

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the record at the start of ``data``; what lies behind its length is not looked at.

        Raises TruncatedError, DecodeError; the offset counts from the start of ``data``.
        """
        spans = cls.places(data)
        header = RecordHeader.decode(data)
        length, end = header.record_length, RecordHeader.SIZE + _ONE * header.section_count
        sections, together = [], True
        for index, (start, stop) in enumerate(spans):
            descriptor = SectionDescriptor.decode(data, RecordHeader.SIZE + _ONE * index)
            sections.append(RecordSection(descriptor, bytes(data[start:stop])))
            together = together and start == end
            end = stop
        gaps: tuple[Gap, ...] = ()
        if not together or end != length:
            head = (0, RecordHeader.SIZE + _ONE * len(sections))
            gaps = tuple(Gap(at, bytes(data[at:stop])) for at, stop in uncovered([head, *spans], length))
        return cls(header, tuple(sections), gaps)

    @staticmethod
    def places(data: bytes | bytearray | memoryview) -> list[tuple[int, int]]:
        """Where the bodies of the record at the start of ``data`` lie: first byte, and byte behind the last.

        The frame is checked as by :meth:`decode`, and nothing else is read.  Raises TruncatedError, DecodeError.
        """
        try:
            length, count, *_ = _frame(data)
        except WireError as error:
            raise error.within("Record", "header") from None
        check_length(length, count, len(data))
        left, spans = length, []
        for index in range(count):
            at = RecordHeader.SIZE + _ONE * index
            start, size = _place(data, at)
            spans.append(body_span(start, size, length, index, at))
            left = apart(left, size, index, at)
        return spans

    def encode(self) -> bytes:
        """The record's bytes.  Raises EncodeError where its lengths contradict its parts."""
        parts: list[tuple[int, bytes]] = []
        head = [self.header.encode(), *(s.descriptor.encode() for s in self.sections)]
        end = RecordHeader.SIZE + _ONE * len(self.sections)
        following = not self.gaps
        for index, (descriptor, body) in enumerate(self.sections):
            if descriptor.section_length != len(body):
                raise EncodeError(
                    f"the body has {counted(len(body), 'byte')}, not {descriptor.section_length}", structure="Record",
                    path=f"sections[{index}].descriptor.section_length",
                    offset=RecordHeader.SIZE + _ONE * index + _LENGTH,
                )  # fmt: skip
            parts.append((descriptor.section_offset, body))
            following = following and descriptor.section_offset == end
            end += len(body)
        if self.header.section_count != len(self.sections) or (following and self.header.record_length != end):
            raise EncodeError(
                f"{counted(len(self.sections), 'section')} and {end} bytes, but the header says "
                f"{self.header.section_count} and {self.header.record_length}",
                structure="Record", path="header.record_length", offset=_RECORD_LENGTH,
            )  # fmt: skip
        if following:
            return b"".join([*head, *(s.body for s in self.sections)])
        raw = put_together([(0, b"".join(head)), *parts, *self.gaps], self.header.record_length)
        for index, (at, part) in enumerate([(0, b"".join(head)), *parts], -1):
            if raw[at : at + len(part)] != part:
                raise EncodeError(
                    "another part lies over it and says something else", structure="Record",
                    path="header" if index < 0 else f"sections[{index}]", offset=at,
                )  # fmt: skip
        return raw

    def overlaps(self) -> list[str]:
        """Bodies that lie over the descriptors or another body: one sentence for each."""
        return overlapping(s.descriptor.span for s in self.sections)

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the record."""
        out: dict[str, Any] = {
            "header": self.header.plain(),
            "sections": [
                {"descriptor": s.descriptor.plain(), **plain_body(s.descriptor.section_type, s.body)}
                for s in self.sections
            ],
        }
        overlaps = self.overlaps()
        out |= {"gaps": [gap.plain() for gap in self.gaps]} if self.gaps else {}
        return out | ({"overlaps": overlaps} if overlaps else {})

    @classmethod
    def plain_of(cls, data: bytes | bytearray | memoryview) -> dict[str, Any]:
        """``decode(data).plain()`` without objects in between.  Raises TruncatedError, DecodeError."""
        header_of, descriptor_of = _readings()
        try:
            header = header_of(data)
        except WireError as error:
            raise error.within("Record", "header") from None
        length, count = header["record_length"], header["section_count"]
        at, end, sections = _HEAD, _HEAD + _ONE * count, []
        if not end <= length <= len(data):
            check_length(length, count, len(data))
        while at < _HEAD + _ONE * count:
            descriptor = descriptor_of(data, at)
            start = descriptor["section_offset"]
            stop = start + descriptor["section_length"]
            if start != end or stop > length:
                return cls._plain_apart(data, header)
            sections.append({"descriptor": descriptor, **plain_at(descriptor["section_type"], data, start, stop)})
            at, end = at + _ONE, stop
        if end != length:
            return cls._plain_apart(data, header)
        return {"header": header, "sections": sections}

    @classmethod
    def _plain_apart(cls, data: bytes | bytearray | memoryview, header: dict[str, Any]) -> dict[str, Any]:
        """Where the bodies do not just follow each other up to the end."""
        spans = cls.places(data)
        at, sections = RecordHeader.SIZE, []
        for start, stop in spans:
            descriptor = SectionDescriptor.plain_of(data, at)
            sections.append({"descriptor": descriptor, **plain_at(descriptor["section_type"], data, start, stop)})
            at += _ONE
        missing = uncovered([(0, at), *spans], header["record_length"])
        gaps = [Gap(a, bytes(data[a:b])).plain() for a, b in missing]
        out: dict[str, Any] = {"header": header, "sections": sections} | ({"gaps": gaps} if gaps else {})
        overlaps = overlapping(spans)
        return out | ({"overlaps": overlaps} if overlaps else {})

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The record that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        items = objects_in(plain, "sections")
        header = RecordHeader.of_plain(object_in(plain, "header"))
        sections = []
        for index, item in enumerate(items):
            try:
                descriptor = SectionDescriptor.of_plain(object_in(item, "descriptor"))
                sections.append(RecordSection(descriptor, body_of_plain(descriptor.section_type, item)))
            except ValueError as error:
                error.add_note(f"sections[{index}]")
                raise
        return cls(header, tuple(sections), tuple(Gap.of_plain(gap) for gap in objects_in(plain, "gaps")))

    @classmethod
    def raw_of_plain(cls, plain: Mapping[str, Any]) -> bytes:
        """``of_plain(plain).encode()``, without objects where nothing is out of the common.  Raises as these do."""
        raw = _raw(plain)
        return cls.of_plain(plain).encode() if raw is None else raw


def _raw(plain: Mapping[str, Any]) -> bytes | None:
    """The bytes of a record whose bodies just follow each other; None where that takes a closer look."""
    header, sections = plain.get("header"), plain.get("sections")
    if "gaps" in plain or type(header) is not dict or type(sections) is not list:
        return None
    header_raw, descriptor_raw = _packers()
    raw = header_raw(header)
    if raw is None:
        return None
    head, bodies, end = [raw], [], _HEAD + _ONE * len(sections)
    for item in sections:
        descriptor = item.get("descriptor") if type(item) is dict else None
        if type(descriptor) is not dict or (raw := descriptor_raw(descriptor)) is None:
            return None
        try:
            body = body_of_plain(_section_type(raw[_TYPE : _TYPE + 16]), item)
        except ValueError:
            return None
        if descriptor["section_offset"] != end or descriptor["section_length"] != len(body):
            return None
        head.append(raw)
        bodies.append(body)
        end += len(body)
    if header["record_length"] != end or header["section_count"] != len(sections):
        return None
    return b"".join(head + bodies)


def _rank(severity: Severity) -> int:
    """The worst first; a reserved value is as bad as fatal, which is how Linux takes it (``ghes_severity``)."""
    order = (Severity.FATAL, Severity.RECOVERABLE, Severity.CORRECTED, Severity.INFORMATIONAL)
    return order.index(severity) if severity in order else 0


@lru_cache(maxsize=1)
def _readings() -> tuple[Callable[..., dict[str, Any]], Callable[..., dict[str, Any]]]:
    """What makes JSON of header and descriptor: pydantic's classes are slow to ask for an attribute."""
    return RecordHeader.plain_of, SectionDescriptor.plain_of


@lru_cache(maxsize=1)
def _packers() -> tuple[Callable[..., bytes | None], Callable[..., bytes | None]]:
    return RecordHeader._pack_plain, SectionDescriptor._pack_plain


@lru_cache(maxsize=64)
def _section_type(raw: bytes) -> UUID:
    return UUID(bytes_le=raw)


__all__ = [
    "NIL",
    "NOTIFICATION_TYPES",
    "Gap",
    "Record",
    "RecordFlags",
    "RecordHeader",
    "RecordSection",
    "SectionDescriptor",
]
