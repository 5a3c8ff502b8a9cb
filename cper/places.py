"""Where the parts of a CPER record lie, and the bytes that belong to none of them (UEFI 2.10, N.2.2).

A descriptor says where its body is: anywhere behind the header, also over another body.  Offsets count from the start
of the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

from cper.plain import hex_in, number_in
from cper.record_header import RecordHeader, SectionDescriptor
from cper.wire import DecodeError, EncodeError, TruncatedError
from cper.words import counted

_HEAD, _ONE = RecordHeader.SIZE, SectionDescriptor.SIZE
_RECORD_LENGTH = RecordHeader.at("record_length").offset
_OFFSET, _LENGTH = SectionDescriptor.at("section_offset").offset, SectionDescriptor.at("section_length").offset


def check_length(length: int, count: int, given: int) -> None:
    """Hold a record's length against its section count and the bytes given.  Raises DecodeError, TruncatedError."""
    end = _HEAD + _ONE * count
    if length < end:
        raise DecodeError(
            f"{length} bytes cannot hold {counted(count, 'section')}: {end} are needed",
            structure="Record", path="header.record_length", offset=_RECORD_LENGTH,
        )  # fmt: skip
    if length > given:
        raise TruncatedError(
            f"{length} bytes needed, {given} given", structure="Record", path="header.record_length",
            offset=_RECORD_LENGTH,
        )  # fmt: skip


def body_span(start: int, size: int, length: int, index: int, at: int) -> tuple[int, int]:
    """Where a body lies in a record of ``length`` bytes, by its descriptor, which lies at ``at``.

    Raises DecodeError, TruncatedError.
    """
    if start < _HEAD or start > length:
        raise DecodeError(
            f"{start:#x} is not between the header and the record's {length} bytes", structure="Record",
            path=f"sections[{index}].descriptor.section_offset", offset=at + _OFFSET,
        )  # fmt: skip
    if start + size > length:
        raise TruncatedError(
            f"{counted(size, 'byte')} needed, {length - start} given", structure="Record",
            path=f"sections[{index}].descriptor.section_length", offset=at + _LENGTH,
        )  # fmt: skip
    return start, start + size


def apart(left: int, size: int, index: int, at: int) -> int:
    """What is left of the record after this body: overlapping bodies would let a small record cost unbounded memory."""
    if size > left:
        raise DecodeError(
            "the bodies overlap: together they are longer than the record", structure="Record",
            path=f"sections[{index}].descriptor.section_length", offset=at + _LENGTH,
        )  # fmt: skip
    return left - size


class Gap(NamedTuple):
    """Bytes of a record that belong to no part of it; ``offset`` counts from the start of the record."""

    offset: int
    data: bytes

    def plain(self) -> dict[str, Any]:
        """What JSON holds."""
        return {"offset": self.offset, "data": self.data.hex()}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The gap that :meth:`plain` described.  Raises ValueError."""
        return cls(number_in(plain, "offset"), hex_in(plain, "data"))


def uncovered(spans: Iterable[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What the spans (first byte, byte behind the last) leave of ``size`` bytes."""
    out, end = [], 0
    for start, stop in sorted(spans):
        if start > end:
            out.append((end, min(start, size)))
        end = max(end, stop)
    return [*out, (end, size)] if end < size else out


def overlapping(spans: Iterable[tuple[int, int]]) -> list[str]:
    """Which bodies (first byte, byte behind the last) lie over the descriptors or over another body, in words."""
    bodies = list(spans)
    end, below, out = _HEAD + _ONE * len(bodies), "the descriptors", []
    for (start, stop), index in sorted((span, index) for index, span in enumerate(bodies)):
        if start < min(stop, end):
            out.append(f"sections[{index}] overlaps {below} at {start:#x}")
        if stop > end:
            end, below = stop, f"sections[{index}]"
    return out


def put_together(parts: Iterable[tuple[int, bytes]], size: int) -> bytes:
    """``size`` bytes of which each part gives some; a later one wins.

    Raises EncodeError where a part lies outside, or where bytes belong to none (so small parts make no large record).
    """
    given = list(parts)
    for at, data in given:
        if at + len(data) > size:
            raise EncodeError(f"a part ends at {at + len(data):#x}, the record at {size:#x}", structure="Record")
    missing = uncovered([(at, at + len(data)) for at, data in given], size)
    if missing:
        raise EncodeError(
            f"no part holds the bytes from here to {missing[0][1]:#x}", structure="Record", offset=missing[0][0]
        )
    out = bytearray(size)
    for at, data in given:
        out[at : at + len(data)] = data
    return bytes(out)
