"""Error Injection Table (ACPI 6.5, 18.6.1) and the trigger error action table (18.6.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import construct as c

from acpi.frame import Counted, ListTable, TableHead
from acpi.instruction import InstructionEntry
from cper.plain import hex_in, members, objects_in
from cper.wire import (
    U8,
    U32,
    DecodeError,
    EncodeError,
    OpenEnum,
    OpenFlags,
    Reserved,
    Struct,
    TruncatedError,
    WireError,
    Word,
    u8,
)
from cper.wire._construct import Wire
from cper.words import counted

LARGEST_TRIGGER_TABLE = 4096
"""Bytes; Linux refuses more (``einj_check_trigger_header``)."""


class EinjAction(OpenEnum):
    """Error injection actions (18.6.1)."""

    BEGIN_INJECTION_OPERATION = 0x00
    GET_TRIGGER_ERROR_ACTION_TABLE = 0x01
    SET_ERROR_TYPE = 0x02
    GET_ERROR_TYPE = 0x03
    END_OPERATION = 0x04
    EXECUTE_OPERATION = 0x05
    CHECK_BUSY_STATUS = 0x06
    GET_COMMAND_STATUS = 0x07
    SET_ERROR_TYPE_WITH_ADDRESS = 0x08
    GET_EXECUTE_OPERATION_TIMINGS = 0x09
    EINJV2_SET_ERROR_TYPE = 0x10
    EINJV2_GET_ERROR_TYPE = 0x11
    TRIGGER_ERROR = 0xFF


class EinjInstruction(OpenEnum):
    """Injection instructions (18.6.3); FLUSH_CACHELINE is known to ACPICA alone."""

    READ_REGISTER = 0
    READ_REGISTER_VALUE = 1
    WRITE_REGISTER = 2
    WRITE_REGISTER_VALUE = 3
    NOOP = 4
    FLUSH_CACHELINE = 5


class EinjStatus(OpenEnum):
    """Command status (18.6.1)."""

    SUCCESS = 0
    UNKNOWN_FAILURE = 1
    INVALID_ACCESS = 2


class ErrorType(OpenFlags):
    """Error types (18.6.4): one bit to inject, several in what GET_ERROR_TYPE says."""

    PROCESSOR_CORRECTABLE = 1 << 0
    PROCESSOR_UNCORRECTABLE = 1 << 1
    PROCESSOR_FATAL = 1 << 2
    MEMORY_CORRECTABLE = 1 << 3
    MEMORY_UNCORRECTABLE = 1 << 4
    MEMORY_FATAL = 1 << 5
    PCIE_CORRECTABLE = 1 << 6
    PCIE_UNCORRECTABLE = 1 << 7
    PCIE_FATAL = 1 << 8
    PLATFORM_CORRECTABLE = 1 << 9
    PLATFORM_UNCORRECTABLE = 1 << 10
    PLATFORM_FATAL = 1 << 11
    CXL_CACHE_CORRECTABLE = 1 << 12
    CXL_CACHE_UNCORRECTABLE = 1 << 13
    CXL_CACHE_FATAL = 1 << 14
    CXL_MEM_CORRECTABLE = 1 << 15
    CXL_MEM_UNCORRECTABLE = 1 << 16
    CXL_MEM_FATAL = 1 << 17
    EINJV2_SUPPORTED = 1 << 30
    VENDOR_DEFINED = 1 << 31


class Einjv2ErrorType(OpenFlags):
    """Error types of EINJ version 2 (ACPI 6.5A, 18.6.4)."""

    PROCESSOR = 1 << 0
    MEMORY = 1 << 1
    PCIE = 1 << 2


class EinjEntry(InstructionEntry, size=32):
    """Injection instruction entry (18.6.2)."""

    action: Annotated[EinjAction, u8]
    """What OSPM wants done."""
    instruction: Annotated[EinjInstruction, u8]
    """One step of it."""


class EinjHeader(TableHead, size=48):
    """Fixed part of the table (18.6.1)."""

    injection_header_size: U32 = 48
    """Bytes: 48, or 12 by those who do not count the table header; Linux takes either."""
    injection_flags: U8 = 0
    """Reserved, 0."""
    reserved: ClassVar[Word] = Reserved(3)
    injection_entry_count: U32
    """Entries that follow."""


class Einj(ListTable[EinjHeader, EinjEntry]):
    """Error Injection Table (18.6.1)."""

    SIGNATURE = "EINJ"
    REVISION = 2
    HEAD = EinjHeader
    ENTRY = EinjEntry
    COUNT = "injection_entry_count"


class TriggerHeader(Struct, size=16):
    """Header of the trigger error action table (18.6.4)."""

    header_size: U32 = 16
    """Bytes of this header."""
    revision: U32 = 1
    """Of the trigger table."""
    table_size: U32
    """Bytes of header and entries."""
    entry_count: U32
    """Entries that follow."""


_TRIGGER = c.Struct(
    "head" / Wire(TriggerHeader),
    "entries" / Counted(EinjEntry, "TriggerTable", TriggerHeader, "entry_count"),
    "tail" / c.GreedyBytes,
)


class TriggerTable(NamedTuple):
    """Trigger error action table (18.6.4): the instructions that make an injected error happen."""

    head: TriggerHeader
    entries: tuple[EinjEntry, ...]
    tail: bytes = b""
    """Bytes behind the last entry that the table's size covers: too few for another."""

    @classmethod
    def of(cls, entries: Iterable[EinjEntry]) -> Self:
        """The table of these entries."""
        found = tuple(entries)
        size = TriggerHeader.SIZE + EinjEntry.SIZE * len(found)
        return cls(TriggerHeader(table_size=size, entry_count=len(found)), found)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the table at the start of ``data``; what lies behind its size is not looked at.

        Raises TruncatedError, and DecodeError where size and count contradict each other, which Linux refuses too.
        """
        try:
            head = TriggerHeader.decode(data)
        except WireError as error:
            raise error.within("TriggerTable", "head") from None
        if head.table_size > LARGEST_TRIGGER_TABLE:
            raise _wrong(f"{head.table_size} bytes is more than {LARGEST_TRIGGER_TABLE}", "table_size")
        if head.header_size != TriggerHeader.SIZE:
            raise _wrong(f"{head.header_size} bytes is not {TriggerHeader.SIZE}", "header_size")
        if (head.table_size - TriggerHeader.SIZE) // EinjEntry.SIZE != head.entry_count:
            entries = counted(head.entry_count, "entry does", "entries do")
            raise _wrong(f"{entries} not make {head.table_size} bytes", "entry_count")
        if head.table_size > len(data):
            raise TruncatedError(
                f"{head.table_size} bytes needed, {len(data)} given", structure="TriggerTable", path="head.table_size",
                offset=TriggerHeader.at("table_size").offset,
            )  # fmt: skip
        frame = _TRIGGER.parse(data[: head.table_size])
        return cls(head, tuple(frame.entries), frame.tail)

    def encode(self) -> bytes:
        """The table's bytes.  Raises EncodeError where its size or count contradicts its entries."""
        frame: bytes = _TRIGGER.build({"head": self.head, "entries": self.entries, "tail": self.tail})
        if (len(self.entries), len(frame)) != (self.head.entry_count, self.head.table_size):
            raise EncodeError(
                f"{counted(len(self.entries), 'entry', 'entries')} and {len(frame)} bytes, but the header says "
                f"{self.head.entry_count} and "
                f"{self.head.table_size}", structure="TriggerTable", path="head.entry_count",
                offset=TriggerHeader.at("entry_count").offset,
            )  # fmt: skip
        return frame

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""
        out = self.head.plain() | {"entries": [entry.plain() for entry in self.entries]}
        return out | ({"tail": self.tail.hex()} if self.tail else {})

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        head = TriggerHeader.of_plain(members(plain, without=("entries", "tail")))
        entries = tuple(EinjEntry.of_plain(entry) for entry in objects_in(plain, "entries"))
        return cls(head, entries, hex_in(plain, "tail"))


def _wrong(reason: str, path: str) -> DecodeError:
    at = TriggerHeader.at(path).offset
    return DecodeError(reason, structure="TriggerTable", path=f"head.{path}", offset=at)


__all__ = [
    "LARGEST_TRIGGER_TABLE", "Einj", "EinjAction", "EinjEntry", "EinjHeader", "EinjInstruction", "EinjStatus",
    "Einjv2ErrorType", "ErrorType", "TriggerHeader", "TriggerTable",
]  # fmt: skip
