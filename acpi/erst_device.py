"""The serialization device (ACPI 6.5, 18.5.1.1 and 18.5.2): the registers behind the table, and what they do.

Two registers, as QEMU's acpi-erst device has them, and an exchange buffer, through which a record goes either way.  The
guest's misbehaviour is a command status, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from acpi.erst import INVALID_ID, UNSPECIFIED_ID, ErrorLogAttributes, Erst, ErstAction, ErstEntry, ErstStatus
from acpi.erst import ErstInstruction as I
from acpi.erst_store import SlotStore
from acpi.gas import AccessSize, GenericAddress
from acpi.instruction import ALL_ONES
from acpi.register import ACTION, VALUE, ActionRegisters
from acpi.table import TableHeader
from cper.record import RecordHeader

EXECUTE = 0x9C
"""What VALUE must hold for EXECUTE_OPERATION to do anything."""
TYPICAL_US, LONGEST_US = 1_000, 100_000
"""Microseconds that an operation takes: a flush to a disk."""
SLOW = ErrorLogAttributes(ErrorLogAttributes.SLOW)
_LENGTH = RecordHeader.at("record_length").offset
_ID = RecordHeader.at("record_id").offset


class Exchange(Protocol):
    """The exchange buffer: the device's memory, or the guest's."""

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes; fewer at the end.  Raises OSError."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``.  Raises OSError."""


@dataclass(frozen=True)
class ErstState:
    """What the registers know; a snapshot of the device is this, the store and the exchange buffer."""

    value: int = 0
    operation: ErstAction = ErstAction.END_OPERATION
    status: ErstStatus = ErstStatus.SUCCESS
    record_offset: int = 0
    record_id: int = UNSPECIFIED_ID
    cursor: int = 0
    """Sequence number of the record whose identifier was read last."""


class ErstDevice(ActionRegisters):
    """Registers over a store.  ``exchange_address`` is where the guest finds the exchange buffer."""

    def __init__(
        self, store: SlotStore, exchange: Exchange, exchange_address: int, *,
        attributes: ErrorLogAttributes = SLOW, state: ErstState | None = None,
    ) -> None:  # fmt: skip
        self.store, self.exchange, self.exchange_address = store, exchange, exchange_address
        self.attributes = attributes
        self.state = state or ErstState()

    @property
    def value(self) -> int:
        """The VALUE register."""
        return self.state.value

    @value.setter
    def value(self, value: int) -> None:
        self.state = replace(self.state, value=value)

    def act(self, action: int) -> None:
        """Do what a write of ``action`` asks for; an unknown one does nothing."""
        state = self.state
        match ErstAction(action):
            case (
                ErstAction.BEGIN_WRITE_OPERATION
                | ErstAction.BEGIN_READ_OPERATION
                | ErstAction.BEGIN_CLEAR_OPERATION
                | ErstAction.BEGIN_DUMMY_WRITE_OPERATION
                | ErstAction.END_OPERATION
            ) as operation:
                self.state = replace(state, operation=operation)
            case ErstAction.SET_RECORD_OFFSET:
                self.state = replace(state, record_offset=state.value & 0xFFFFFFFF)  # written as 32 bits
            case ErstAction.SET_RECORD_IDENTIFIER:
                self.state = replace(state, record_id=state.value)
            case ErstAction.EXECUTE_OPERATION if state.value & 0xFF == EXECUTE:
                status = self._execute()  # may change the state
                self.state = replace(self.state, status=status)
            case ErstAction.CHECK_BUSY_STATUS:
                self.value = 0
            case ErstAction.GET_COMMAND_STATUS:
                self.value = int(state.status)
            case ErstAction.GET_RECORD_IDENTIFIER:
                record_id, cursor = self.store.next_id(state.cursor)
                self.state = replace(state, value=record_id, cursor=cursor, status=ErstStatus.SUCCESS)
            case ErstAction.GET_RECORD_COUNT:
                self.value = len(self.store)
            case ErstAction.GET_ERROR_LOG_ADDRESS_RANGE:
                self.value = self.exchange_address
            case ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH:
                self.value = self.store.record_size
            case ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES:
                self.value = int(self.attributes)
            case ErstAction.GET_EXECUTE_OPERATION_TIMINGS:
                self.value = LONGEST_US << 32 | TYPICAL_US
            case _:
                pass

    # -- operations --------------------------------------------------------------

    def _execute(self) -> ErstStatus:
        try:
            match self.state.operation:
                case ErstAction.BEGIN_WRITE_OPERATION:
                    return self._write()
                case ErstAction.BEGIN_READ_OPERATION:
                    return self._read()
                case ErstAction.BEGIN_CLEAR_OPERATION:
                    return self.store.clear(self.state.record_id)
                case ErstAction.BEGIN_DUMMY_WRITE_OPERATION:
                    return ErstStatus.SUCCESS
                case _:
                    return ErstStatus.FAILED
        except OSError:
            return ErstStatus.HARDWARE_NOT_AVAILABLE

    def _write(self) -> ErstStatus:
        """Keep the record at the record offset (18.5.2.1)."""
        offset, room = self.state.record_offset, self.store.record_size
        if offset > room - RecordHeader.SIZE:
            return ErstStatus.FAILED
        raw = self.exchange.read(offset, room - offset)  # once: the guest may change it at any moment
        length = int.from_bytes(raw[_LENGTH : _LENGTH + 4], "little")
        if not RecordHeader.SIZE <= length <= len(raw):
            return ErstStatus.FAILED
        return self.store.write(int.from_bytes(raw[_ID : _ID + 8], "little"), raw[:length])

    def _read(self) -> ErstStatus:
        """Put the record of the record identifier at the record offset; unspecified: the first (18.5.2.2)."""
        first, _ = self.store.next_id()
        if first == INVALID_ID:
            return ErstStatus.RECORD_STORE_EMPTY
        if self.state.record_id == INVALID_ID:
            return ErstStatus.FAILED
        wanted = self.state.record_id if self.state.record_id != UNSPECIFIED_ID else first
        if wanted not in self.store:
            self.state = replace(self.state, record_id=first)
            return ErstStatus.RECORD_NOT_FOUND
        record = self.store.read(wanted)
        if record is None or self.state.record_offset + len(record) > self.store.record_size:
            return ErstStatus.FAILED
        self.exchange.write(self.state.record_offset, record)
        return ErstStatus.SUCCESS


def erst_table(registers: int, header: TableHeader | None = None) -> Erst:
    """The table of a device whose registers are at ``registers``; ``header`` gives the OEM's words."""

    def entry(action: ErstAction, instruction: I, at: int, bits: int, value: int = 0) -> ErstEntry:
        access = AccessSize.QWORD if bits == 64 else AccessSize.DWORD
        region = GenericAddress(bit_width=bits, access_size=access, address=registers + at)
        return ErstEntry(
            action=action, instruction=instruction, register_region=region, value=value, mask=ALL_ONES >> 64 - bits
        )

    entries: list[ErstEntry] = []
    for action in ErstAction:
        argument = _ARGUMENTS.get(action)
        if argument is not None:
            bits, value = argument
            kind = I.WRITE_REGISTER if value is None else I.WRITE_REGISTER_VALUE
            entries.append(entry(action, kind, VALUE, bits, value or 0))
        entries.append(entry(action, I.WRITE_REGISTER_VALUE, ACTION, 32, int(action)))
        result = _RESULTS.get(action)
        if result is not None:
            bits, value = result
            kind = I.READ_REGISTER if value is None else I.READ_REGISTER_VALUE
            entries.append(entry(action, kind, VALUE, bits, value or 0))
    return Erst.of(entries, header)


_ARGUMENTS: dict[ErstAction, tuple[int, int | None]] = {
    ErstAction.SET_RECORD_OFFSET: (32, None),
    ErstAction.EXECUTE_OPERATION: (32, EXECUTE),
    ErstAction.SET_RECORD_IDENTIFIER: (64, None),
}
"""Actions that write VALUE before they act: its width, and what is written (None: OSPM's input)."""
_RESULTS: dict[ErstAction, tuple[int, int | None]] = {
    ErstAction.CHECK_BUSY_STATUS: (32, 1),
    ErstAction.GET_COMMAND_STATUS: (32, None),
    ErstAction.GET_RECORD_IDENTIFIER: (64, None),
    ErstAction.GET_RECORD_COUNT: (32, None),
    ErstAction.GET_ERROR_LOG_ADDRESS_RANGE: (64, None),
    ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH: (64, None),
    ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES: (32, None),
    ErstAction.GET_EXECUTE_OPERATION_TIMINGS: (64, None),
}
"""Actions that read VALUE after they act: its width, and what it is compared with (None: it is the output)."""

__all__ = ["EXECUTE", "ErstDevice", "ErstState", "Exchange", "erst_table"]
