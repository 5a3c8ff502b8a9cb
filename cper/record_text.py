"""JSON text of whole CPER records (UEFI 2.10, N.2.1 and N.2.2), many of which have one shape (``cper.shape``)."""

from __future__ import annotations

import orjson

from cper.record import Record
from cper.record_header import RecordHeader, SectionDescriptor
from cper.shape import Piece, Shape, Shapes, pieces_of
from cper.wire import WireError

FIXED = frozenset({
    "record_length", "section_count", "section_offset", "section_length", "section_type",
    "revision", "severity", "flags", "creator_id", "notification_type",
})  # fmt: skip
"""Fields of header and descriptor that tell where others lie and which there are, and those of few different values."""


def json_of(data: bytes | bytearray | memoryview) -> bytes:
    """``orjson.dumps(Record.plain_of(data))``, by a function of the record's shape where many of it were met.

    Raises TruncatedError, DecodeError.
    """
    return text_of(data) or orjson.dumps(Record.plain_of(data))


def shape_of(data: bytes) -> Shape | None:
    """The shape of a record; None for what is no good record, has gaps, or a section that does not tell its shape."""
    try:
        record, tree = Record.decode(data), Record.plain_of(data)
    except WireError:
        return None
    at, end = RecordHeader.SIZE, RecordHeader.SIZE + SectionDescriptor.SIZE * len(record.sections)
    pieces = [Piece(0, RecordHeader, tree["header"], FIXED)]
    for section, node in zip(record.sections, tree["sections"], strict=True):
        start, stop = section.descriptor.span
        if start != end or node.keys() != {"descriptor", "section"}:
            return None
        inner = pieces_of(section.section(), start, node["section"])
        if inner is None:
            return None
        pieces += [Piece(at, SectionDescriptor, node["descriptor"], FIXED), *inner]
        at, end = at + SectionDescriptor.SIZE, stop
    return Shape(data, tree, pieces) if end == len(data) else None


text_of = Shapes(shape_of).text
"""The JSON text of a good record whose shape was met often, else None.  Raises nothing."""


__all__ = ["json_of", "shape_of", "text_of"]
