"""CCIX PER Log Error section (UEFI 2.10, N.2.12): a protocol error that a CCIX component recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import construct as c

from cper.framed import FramedSection, Head, Upto
from cper.wire import U8, U32, Bits, Reserved, Struct, Valid, ValidationBits, Word


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


@dataclass(frozen=True)
class CcixPer(FramedSection[CcixPerHead], guid="91335ef6-ebfb-4478-a6a6-88b728cf75d7"):
    """A protocol error record.  The log's format is that of the CCIX base specification; it is kept as bytes."""

    FRAME = c.Struct("head" / Head(CcixPerHead, "length"), "per_log" / Upto("length"), "trailing" / Upto())

    per_log: bytes = b""
    """The log: 32-bit words, at least five."""
    trailing: bytes = b""
    """Bytes behind what length covers."""

    @classmethod
    def of(cls, per_log: bytes, **fields: Any) -> Self:
        """The section with this log; ``fields`` are those of its head."""
        given = {"length": CcixPerHead.SIZE + len(per_log), "per_log_valid": True} | fields
        return cls(CcixPerHead(**given), per_log)
