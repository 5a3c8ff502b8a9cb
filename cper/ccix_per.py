"""CCIX PER Log Error section (UEFI 2.10, N.2.12): a protocol error that a CCIX component recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import construct as c

from cper.framed import FramedSection, Head
from cper.wire import U8, U32, Bits, DecodeError, Reserved, Struct, TruncatedError, Valid, ValidationBits, Word


class CcixPerHead(Struct, size=16):
    """What precedes the log of a CCIX PER Log Error section."""

    length: U32
    """Bytes, of the whole section."""
    validation_bits: ClassVar[Word] = ValidationBits("Q")
    per_log_valid: Annotated[bool, Bits("validation_bits", 2, 3)] = False
    """Whether the log is meaningful."""
    source_id: Annotated[U8 | None, Valid(0)] = None
    """Agent that reported it; for errors of a port, a link or a device the device id."""
    port_id: Annotated[U8 | None, Valid(1)] = None
    """Port that reported it."""
    reserved: ClassVar[Word] = Reserved(2)


class _PerLog(c.Construct):  # type: ignore[misc]
    """The log, as long as the head's length says."""

    def _parse(self, stream: Any, context: Any, path: str) -> bytes:
        length, left = context.head.length, c.stream_size(stream) - stream.tell()
        if length < CcixPerHead.SIZE:
            reason = f"{length} bytes, but the head alone has {CcixPerHead.SIZE}"
            raise DecodeError(reason, structure="CcixPer", path="head.length", offset=0)
        if length - CcixPerHead.SIZE > left:
            reason = f"{length} bytes needed, {CcixPerHead.SIZE + left} given"
            raise TruncatedError(reason, structure="CcixPer", path="head.length", offset=0)
        data: bytes = stream.read(length - CcixPerHead.SIZE)
        return data

    def _build(self, obj: bytes, stream: Any, context: Any, path: str) -> bytes:
        stream.write(obj)
        return obj


@dataclass(frozen=True)
class CcixPer(FramedSection[CcixPerHead], guid="91335ef6-ebfb-4478-a6a6-88b728cf75d7"):
    """A protocol error record.  The log's format is that of the CCIX base specification; it is kept as bytes."""

    HEAD = CcixPerHead
    FRAME = c.Struct("head" / Head(CcixPerHead, "CcixPer"), "per_log" / _PerLog(), "trailing" / c.GreedyBytes)
    KINDS = {"head": CcixPerHead}

    per_log: bytes = b""
    """The log: 32-bit words, at least five."""
    trailing: bytes = b""
    """Bytes behind what length covers."""

    @classmethod
    def of(cls, per_log: bytes, **fields: Any) -> Self:
        """The section with this log; ``fields`` are those of its head."""
        given = {"length": CcixPerHead.SIZE + len(per_log), "per_log_valid": True} | fields
        return cls(CcixPerHead(**given), per_log)
