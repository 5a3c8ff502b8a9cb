"""Firmware Error Record Reference section (UEFI 2.10, N.2.10): where firmware keeps its own record of the error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import construct as c

from cper.framed import FramedSection, Head, Upto
from cper.plain import number_in
from cper.wire import U8, U64, Guid, OpenEnum, Reserved, Struct, Word, u8


class FirmwareErrorRecordType(OpenEnum):
    """What kind of record it is (Firmware Error Record Type)."""

    IPF_SAL = 0
    SOC_TYPE_1 = 1
    """Legacy CrashLog."""
    SOC_TYPE_2 = 2


class FirmwareErrorRecordHead(Struct, size=16):
    """The reference as revision 0 has it."""

    record_type: Annotated[FirmwareErrorRecordType, u8]
    """What kind of record it is."""
    revision: U8 = 0
    """Header revision."""
    reserved: ClassVar[Word] = Reserved(6)
    record_identifier: U64 = 0
    """Which record; from revision 1 on it is 0 and says nothing."""


class FirmwareErrorRecordGuidHead(FirmwareErrorRecordHead, size=32):
    """The reference as later revisions have it."""

    record_identifier_guid: Guid
    """Which record, where its type is SOC_TYPE_2."""


def _head_of(revision: int) -> type[FirmwareErrorRecordHead]:
    return FirmwareErrorRecordGuidHead if revision else FirmwareErrorRecordHead


class _Head(Head):
    """The head that its own revision asks for."""

    def __init__(self) -> None:
        super().__init__(FirmwareErrorRecordHead)
        self.reader = self

    def kind_of(self, body: bytes) -> type[Struct]:
        return _head_of(body[1] if len(body) > 1 else 0)

    def of_plain(self, value: Mapping[str, Any], /) -> Struct:
        """The head that JSON described."""
        return _head_of(number_in(value, "revision", 0)).of_plain(value)


@dataclass(frozen=True)
class FirmwareErrorRecord(FramedSection[FirmwareErrorRecordHead], guid="81212a96-09ed-4996-9471-8d729c8e69ed"):
    """A reference to firmware's record, and what the vendor put behind it."""

    FRAME = c.Struct("head" / _Head(), "vendor_data" / Upto())

    vendor_data: bytes = b""
    """Bytes behind the reference: with a CrashLog, the log itself."""

    @classmethod
    def of(cls, *, revision: int = 2, vendor_data: bytes = b"", **fields: Any) -> Self:
        """The section of that revision; ``fields`` are those of its head."""
        return cls(_head_of(revision)(revision=revision, **fields), vendor_data)
