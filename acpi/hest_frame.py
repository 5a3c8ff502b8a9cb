"""The Hardware Error Source Table as a construct declaration (ACPI 6.5, 18.3.2), to be embedded in one's own.

``Hest.parse`` is the loop that reads tables quickly; this declaration stands beside it and reports the same offsets.
"""

from __future__ import annotations

from typing import Any

import construct as c

from acpi.hest import FIXED, HestHeader, OpaqueSource, Source, source_reader
from acpi.machine_check import HEADERS, MachineCheckBank, MachineCheckHeader, MachineCheckSource
from cper.wire import DecodeError, Struct, TruncatedError, WireError
from cper.wire._construct import Wire


def _banks(kind: type[MachineCheckHeader]) -> c.Construct:
    def fits(header: Any, context: Any) -> None:
        need, left = MachineCheckBank.SIZE * header.bank_count, c.stream_size(context._io) - context._io.tell()
        if need > left:
            raise TruncatedError(
                f"{header.bank_count} banks need {need} bytes, {left} given", structure=kind.__name__,
                path="bank_count", offset=context._io.tell() - kind.SIZE + kind.at("bank_count").offset,
            )  # fmt: skip

    return c.Struct("header" / (Wire(kind) * fits), "banks" / c.Array(_bank_count, Wire(MachineCheckBank)))


def _bank_count(context: Any) -> int:
    return int(context.header.bank_count)


FRAMES: dict[int, c.Construct] = {
    **{number: Wire(kind) for number, kind in FIXED.items()},
    **{number: _banks(kind) for number, kind in HEADERS.items()},
}
"""Source type to construct declaration."""


class _Source(c.Construct):  # type: ignore[misc]
    """One error source, told apart by its type word."""

    def _parse(self, stream: Any, context: Any, path: str) -> Source:
        at, name = stream.tell(), f"sources[{context._index}]"
        word = stream.read(2)
        stream.seek(at)
        number = int.from_bytes(word, "little")
        if len(word) < 2:
            raise TruncatedError(f"2 bytes needed, {len(word)} given", structure="Hest", path=f"{name}.type", offset=at)
        if source_reader(number, context.head.header.revision) is None:
            raise DecodeError(
                f"type {number} is unknown, and its length with it", structure="Hest", path=f"{name}.type", offset=at
            )
        try:
            if number not in FRAMES:
                source: Source = OpaqueSource.decode(stream.getvalue(), at)
                stream.seek(at + source.SIZE)
                return source
            found = FRAMES[number]._parsereport(stream, context, path)
        except WireError as error:
            raise error.within("Hest", name) from None
        return MachineCheckSource(found.header, tuple(found.banks)) if number in HEADERS else found

    def _build(self, obj: Source, stream: Any, context: Any, path: str) -> Source:
        stream.write(obj.encode())
        return obj


class _Head(Wire):
    """The fixed part; a count that is not there is missed in the same words as by ``Hest.parse``."""

    def __init__(self) -> None:
        super().__init__(HestHeader)

    def _parse(self, stream: Any, context: Any, path: str) -> Struct:
        try:
            return super()._parse(stream, context, path)
        except TruncatedError as error:
            at = HestHeader.at("error_source_count").offset
            if (error.offset or 0) < at:
                raise
            raise TruncatedError(
                f"4 bytes needed, {c.stream_size(stream) - at} given", structure="Hest", path="count", offset=at
            ) from None


HEST = c.Struct(
    "head" / _Head(), "sources" / c.Array(lambda context: context.head.error_source_count, _Source()),
    "trailing" / c.GreedyBytes,
)  # fmt: skip
"""The whole table; the stream must end where the header's length says."""

__all__ = ["FRAMES", "HEST"]
