"""Error Record Serialization Table (ACPI 6.5, 18.5.1): how OSPM keeps error records across a reset."""

from __future__ import annotations

from typing import Annotated, ClassVar

from acpi.frame import ListTable, TableHead
from acpi.instruction import InstructionEntry
from cper.wire import U32, OpenEnum, OpenFlags, Reserved, Word, u8

UNSPECIFIED_ID = 0
"""Record identifier that means none in particular (18.5.2)."""
INVALID_ID = (1 << 64) - 1
"""Record identifier that means there is none, or no further one (18.5.2)."""


class ErstAction(OpenEnum):
    """Serialization actions (18.5.1.1)."""

    BEGIN_WRITE_OPERATION = 0
    BEGIN_READ_OPERATION = 1
    BEGIN_CLEAR_OPERATION = 2
    END_OPERATION = 3
    SET_RECORD_OFFSET = 4
    EXECUTE_OPERATION = 5
    CHECK_BUSY_STATUS = 6
    GET_COMMAND_STATUS = 7
    GET_RECORD_IDENTIFIER = 8
    SET_RECORD_IDENTIFIER = 9
    GET_RECORD_COUNT = 10
    BEGIN_DUMMY_WRITE_OPERATION = 11
    GET_ERROR_LOG_ADDRESS_RANGE = 13
    GET_ERROR_LOG_ADDRESS_RANGE_LENGTH = 14
    GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES = 15
    GET_EXECUTE_OPERATION_TIMINGS = 16


class ErstInstruction(OpenEnum):
    """Serialization instructions (18.5.1.3)."""

    READ_REGISTER = 0
    READ_REGISTER_VALUE = 1
    WRITE_REGISTER = 2
    WRITE_REGISTER_VALUE = 3
    NOOP = 4
    LOAD_VAR1 = 5
    LOAD_VAR2 = 6
    STORE_VAR1 = 7
    ADD = 8
    SUBTRACT = 9
    ADD_VALUE = 10
    SUBTRACT_VALUE = 11
    STALL = 12
    STALL_WHILE_TRUE = 13
    SKIP_NEXT_INSTRUCTION_IF_TRUE = 14
    GOTO = 15
    SET_SRC_ADDRESS_BASE = 16
    SET_DST_ADDRESS_BASE = 17
    MOVE_DATA = 18


class ErstStatus(OpenEnum):
    """Command status (18.5.1.1, Table 18.22)."""

    SUCCESS = 0
    NOT_ENOUGH_SPACE = 1
    HARDWARE_NOT_AVAILABLE = 2
    FAILED = 3
    RECORD_STORE_EMPTY = 4
    RECORD_NOT_FOUND = 5


class ErrorLogAttributes(OpenFlags):
    """Attributes of the error log address range (18.5.1.1)."""

    NON_VOLATILE = 1 << 1
    SLOW = 1 << 2


class ErstEntry(InstructionEntry, size=32):
    """Serialization instruction entry (18.5.1.2)."""

    action: Annotated[ErstAction, u8]
    """What OSPM wants done."""
    instruction: Annotated[ErstInstruction, u8]
    """One step of it."""


class ErstHeader(TableHead, size=48):
    """Fixed part of the table (18.5.1)."""

    serialization_header_size: U32 = 48
    """Bytes: 48, or 12 by those who do not count the table header; Linux takes either."""
    reserved: ClassVar[Word] = Reserved(4)
    instruction_entry_count: U32
    """Entries that follow."""


class Erst(ListTable[ErstHeader, ErstEntry]):
    """Error Record Serialization Table (18.5.1)."""

    SIGNATURE = "ERST"
    REVISION = 1
    HEAD = ErstHeader
    ENTRY = ErstEntry
    COUNT = "instruction_entry_count"


__all__ = [
    "INVALID_ID", "UNSPECIFIED_ID", "ErrorLogAttributes", "Erst", "ErstAction", "ErstEntry", "ErstHeader",
    "ErstInstruction", "ErstStatus",
]  # fmt: skip
