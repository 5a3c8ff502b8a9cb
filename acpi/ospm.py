"""What OSPM does with ERST and EINJ (ACPI 6.5, 18.5.2 and 18.6; Linux ``erst.c`` and ``einj-core.c``).

A guest without a kernel: tests and dry runs drive a device through its table, exactly as Linux's sequences do.
"""

from __future__ import annotations

from collections.abc import Iterator

from acpi.einj import Einj, EinjAction, EinjInstruction, EinjStatus, ErrorType, TriggerHeader, TriggerTable
from acpi.einj_parameters import EINJV2_AT, SetErrorTypeWithAddress
from acpi.erst import INVALID_ID, Erst, ErstAction, ErstStatus
from acpi.gas import AddressSpace
from acpi.interpreter import Dialect, Interpreter
from acpi.register import Space
from cper.wire import DecodeError

MOST_POLLS = 10_000
"""Times that OSPM asks whether the platform is busy."""


class ErstClient:
    """Writes, reads and clears records through the table's instructions."""

    def __init__(self, table: Erst, space: Space, dialect: Dialect = Dialect.LINUX) -> None:
        self.table, self.space, self.dialect = table, space, dialect
        run = self._interpreter()
        self.base = run.run(ErstAction.GET_ERROR_LOG_ADDRESS_RANGE)
        self.size = run.run(ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH)
        self.attributes = run.run(ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES)

    def write(self, record: bytes, offset: int = 0) -> ErstStatus:
        """Keep a record (18.5.2.1).  Raises ValueError for one that is larger than the exchange buffer."""
        if offset + len(record) > self.size:
            raise ValueError(f"{len(record)} bytes do not fit the {self.size} of the error log address range")
        self.space.write_memory(self.base + offset, record)
        return self._operate(ErstAction.BEGIN_WRITE_OPERATION, offset)

    def read(self, record_id: int, offset: int = 0) -> tuple[ErstStatus, bytes]:
        """Fetch a record (18.5.2.2)."""
        status = self._operate(ErstAction.BEGIN_READ_OPERATION, offset, record_id)
        if status != ErstStatus.SUCCESS:
            return status, b""
        length = int.from_bytes(self.space.read_memory(self.base + offset + 20, 4), "little")
        return status, self.space.read_memory(self.base + offset, min(length, self.size - offset))

    def clear(self, record_id: int) -> ErstStatus:
        """Forget a record (18.5.2.3)."""
        return self._operate(ErstAction.BEGIN_CLEAR_OPERATION, None, record_id)

    def count(self) -> int:
        """Records that the platform keeps."""
        return self._interpreter().run(ErstAction.GET_RECORD_COUNT)

    def ids(self, most: int = 1 << 20) -> Iterator[int]:
        """Record identifiers, until the platform says that there are no more, or begins again."""
        first = previous = INVALID_ID
        for _ in range(most):
            found = self._interpreter().run(ErstAction.GET_RECORD_IDENTIFIER)
            if found in {INVALID_ID, previous, first}:
                return
            first = found if first == INVALID_ID else first
            previous = found
            yield found

    def _interpreter(self) -> Interpreter:
        return Interpreter(self.table.entries, self.space, self.dialect)

    def _operate(self, begin: ErstAction, offset: int | None, record_id: int | None = None) -> ErstStatus:
        run = self._interpreter()
        run.run(begin, optional=True)
        if offset is not None:
            run.run(ErstAction.SET_RECORD_OFFSET, offset)
        if record_id is not None:
            run.run(ErstAction.SET_RECORD_IDENTIFIER, record_id)
        run.run(ErstAction.EXECUTE_OPERATION)
        _wait(run, ErstAction.CHECK_BUSY_STATUS)
        status = ErstStatus(run.run(ErstAction.GET_COMMAND_STATUS))
        run.run(ErstAction.END_OPERATION, optional=True)
        return status


class EinjClient:
    """Injects an error through the table's instructions, and runs the trigger table."""

    def __init__(self, table: Einj, space: Space) -> None:
        self.table, self.space = table, space
        self.parameters = next(
            (
                e.register_region.address
                for e in reversed(table.entries)
                if e.action == EinjAction.SET_ERROR_TYPE_WITH_ADDRESS
                and e.instruction == EinjInstruction.WRITE_REGISTER
                and e.register_region.address_space == AddressSpace.SYSTEM_MEMORY
            ),
            None,
        )

    def supported(self) -> ErrorType:
        """What the platform can inject."""
        return ErrorType(self._interpreter().run(EinjAction.GET_ERROR_TYPE))

    def inject(
        self, target: SetErrorTypeWithAddress, extension: bytes = b"", *, with_address: bool = True,
        trigger: bool = True,
    ) -> EinjStatus:  # fmt: skip
        """Inject; ``extension`` is an EINJ version 2 extension.  Without ``with_address`` only the type is told.

        Raises DecodeError for a trigger table that Linux would refuse.
        """
        run = self._interpreter()
        run.run(EinjAction.BEGIN_INJECTION_OPERATION, optional=True)
        if with_address and self.parameters is not None:
            self.space.write_memory(self.parameters, target.encode())
            if extension:
                self.space.write_memory(self.parameters + EINJV2_AT, extension)
        else:
            run.run(EinjAction.SET_ERROR_TYPE, int(target.error_type))
        run.run(EinjAction.EXECUTE_OPERATION)
        _wait(run, EinjAction.CHECK_BUSY_STATUS)
        status = EinjStatus(run.run(EinjAction.GET_COMMAND_STATUS))
        if status != EinjStatus.SUCCESS:
            return status
        at = run.run(EinjAction.GET_TRIGGER_ERROR_ACTION_TABLE)
        if trigger:
            self._trigger(at)
        run.run(EinjAction.END_OPERATION, optional=True)
        return status

    def _trigger(self, at: int) -> None:
        head = TriggerHeader.decode(self.space.read_memory(at, TriggerHeader.SIZE))
        table = TriggerTable.decode(self.space.read_memory(at, min(head.table_size, 4096)))
        if table.entries:
            Interpreter(table.entries, self.space).run(EinjAction.TRIGGER_ERROR)

    def _interpreter(self) -> Interpreter:
        return Interpreter(self.table.entries, self.space)


def _wait(run: Interpreter, action: ErstAction | EinjAction) -> None:
    for _ in range(MOST_POLLS):
        if not run.run(action) & 1:
            return
    raise DecodeError(f"the platform stays busy for {MOST_POLLS} polls", structure="Instructions", path="entries")


__all__ = ["EinjClient", "ErstClient"]
