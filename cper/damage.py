"""What can still be read of a CPER record that is cut off or contradicts itself (UEFI 2.10, N.2.1 and N.2.2).

Nothing is lost: what no part could be read from stays as gaps, and every fault says where and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

from cper.fault import body_fault, plain_fault
from cper.places import Gap, body_span, check_length, overlapping, put_together, uncovered
from cper.plain import members, number_in, object_in, objects_in
from cper.record import Record
from cper.record_header import RecordHeader, SectionDescriptor
from cper.section import body_of_plain, plain_body
from cper.wire import DecodeError, TruncatedError, WireError

_SIGNATURES = ("signature_start", "signature_end")


class DamagedSection(NamedTuple):
    """A descriptor, and as much of its body as there is; None where it lies nowhere in the bytes given."""

    descriptor: SectionDescriptor
    body: bytes | None


class DamagedRecord(NamedTuple):
    """As much of a record as could be read; ``faults`` say what could not, and why."""

    size: int
    """Bytes that were given."""
    header: RecordHeader | None
    sections: tuple[DamagedSection, ...]
    gaps: tuple[Gap, ...]
    """Bytes that no part was read from, or that a part cannot say."""
    faults: tuple[WireError, ...]

    def encode(self) -> bytes:
        """The bytes that were given.  Raises EncodeError where the parts are not those of one reading."""
        return put_together([*self._parts(), *self.gaps], self.size)

    def _parts(self) -> Iterable[tuple[int, bytes]]:
        if self.header is not None:
            yield 0, self.header.encode()
        for index, (descriptor, body) in enumerate(self.sections):
            yield RecordHeader.SIZE + SectionDescriptor.SIZE * index, descriptor.encode()
            if body is not None:
                yield descriptor.section_offset, body

    def overlaps(self) -> list[str]:
        """Bodies, as much as there is of them, that lie over the descriptors or another body: one sentence for each."""
        return overlapping(
            (s.descriptor.section_offset, s.descriptor.section_offset + len(s.body or b"")) for s in self.sections
        )

    def plain(self) -> dict[str, Any]:
        """What JSON holds."""
        out: dict[str, Any] = {"size": self.size}
        if self.header is not None:
            out["header"] = self.header.plain()
        out["sections"] = [
            {"descriptor": s.descriptor.plain()}
            | ({} if s.body is None else plain_body(s.descriptor.section_type, s.body))
            for s in self.sections
        ]
        if self.gaps:
            out["gaps"] = [gap.plain() for gap in self.gaps]
        if overlaps := self.overlaps():
            out["overlaps"] = overlaps
        return out | {"faults": [plain_fault(fault) for fault in self.faults]}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """What :meth:`plain` described, without the faults.  Raises ValueError."""
        sections = []
        for item in objects_in(plain, "sections"):
            descriptor = SectionDescriptor.of_plain(object_in(item, "descriptor"))
            there = "section" in item or "body" in item
            sections.append(DamagedSection(descriptor, body_of_plain(descriptor.section_type, item) if there else None))
        header = RecordHeader.of_plain(object_in(plain, "header")) if "header" in members(plain) else None
        gaps = tuple(Gap.of_plain(gap) for gap in objects_in(plain, "gaps"))
        return cls(number_in(plain, "size"), header, tuple(sections), gaps, ())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what can be read.  Raises nothing."""
        faults: list[WireError] = []
        header = _header(data, faults)
        sections: list[DamagedSection] = []
        if header is not None:
            try:
                check_length(header.record_length, header.section_count, len(data))
            except WireError as error:
                faults.append(error)
            length = max(header.record_length, RecordHeader.SIZE)
            left = len(data)
            for index in range(header.section_count):
                at = RecordHeader.SIZE + SectionDescriptor.SIZE * index
                try:
                    descriptor = SectionDescriptor.decode(data, at)
                except TruncatedError as error:
                    faults.append(error.within("Record", f"sections[{index}].descriptor"))
                    break
                body, left = _body(data, descriptor, length, index, at, left, faults)
                sections.append(DamagedSection(descriptor, body))
        read = cls(len(data), header, tuple(sections), (), ())
        covered = [(at, at + len(part)) for at, part in read._parts()]
        gaps = [Gap(at, data[at:stop]) for at, stop in uncovered(covered, len(data))]
        if header is not None:
            gaps += [Gap(row.offset, _at(data, row.offset)) for row in map(RecordHeader.at, _SIGNATURES)
                     if _at(data, row.offset) != _at(header.encode(), row.offset)]  # fmt: skip
        return read._replace(gaps=tuple(gaps), faults=tuple(faults))


def _at(data: bytes, offset: int) -> bytes:
    return data[offset : offset + 4]


def _header(data: bytes, faults: list[WireError]) -> RecordHeader | None:
    """The header, also where a signature is wrong."""
    try:
        return RecordHeader.decode(data)
    except TruncatedError as error:
        faults.append(error.within("Record", "header"))
        return None
    except DecodeError as error:
        faults.append(error.within("Record", "header"))
    mended = bytearray(data[: RecordHeader.SIZE])
    for name in _SIGNATURES:
        row = RecordHeader.at(name)
        mended[row.offset : row.offset + row.size] = _WHOLE[row.offset : row.offset + row.size]
    return RecordHeader.decode(mended)


_WHOLE = Record.of_bodies([]).encode()


def _body(
    data: bytes, descriptor: SectionDescriptor, length: int, index: int, at: int, left: int, faults: list[WireError]
) -> tuple[bytes | None, int]:
    """As much of a body as there is, and what is left of the bytes given: bodies together are never more than those."""
    start, stop = descriptor.span
    try:
        body_span(start, descriptor.section_length, min(length, len(data)), index, at)
    except WireError as error:
        faults.append(error)
        if start < RecordHeader.SIZE or start >= len(data):
            return None, left
    body = data[start : min(stop, len(data))]
    if len(body) > left:
        faults.append(
            DecodeError(
                "the bodies overlap: together they are longer than the record", structure="Record",
                path=f"sections[{index}].descriptor.section_length",
                offset=at + SectionDescriptor.at("section_length").offset,
            )
        )  # fmt: skip
        return None, left
    return body, left - len(body)


def faults_of(record: Record) -> list[WireError]:
    """Why bodies of a whole record cannot be read as the type that their descriptor names."""
    found = (
        body_fault(s.descriptor.section_type, s.body, f"sections[{i}].section", s.descriptor.section_offset)
        for i, s in enumerate(record.sections)
    )
    return [fault for fault in found if fault is not None]


__all__ = ["DamagedRecord", "DamagedSection", "faults_of"]
