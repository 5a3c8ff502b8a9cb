"""The frame of a CPER record (UEFI 2.10, N.2.1 and N.2.2) as a construct declaration, for declarations of one's own."""

from __future__ import annotations

from typing import Any

import construct as c

from cper.places import apart, body_span, check_length
from cper.record import RecordHeader, RecordSection, SectionDescriptor
from cper.wire import Struct, WireError
from cper.wire._construct import Wire


class _Body(c.Construct):  # type: ignore[misc]
    """The body that a descriptor points to."""

    def _parse(self, stream: Any, context: Any, path: str) -> RecordSection:
        at = stream.tell()
        descriptor = Wire(SectionDescriptor)._parse(stream, context, path)
        back = stream.tell()
        length, index, size = context.header.record_length, context._index, descriptor.section_length  # type: ignore[attr-defined]
        start, stop = body_span(descriptor.section_offset, size, length, index, at)  # type: ignore[attr-defined]
        context.left = apart(context.get("left", length), size, index, at)
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
        check_length(header.record_length, header.section_count, c.stream_size(stream))  # type: ignore[attr-defined]
        return header

    def _build(self, obj: RecordHeader, stream: Any, context: Any, path: str) -> RecordHeader:
        stream.write(obj.encode())
        return obj


RECORD = c.Struct("header" / _Header(), "sections" / c.Array(lambda context: context.header.section_count, _Body()))
"""Header, descriptors and bodies; gaps between them are passed over."""
