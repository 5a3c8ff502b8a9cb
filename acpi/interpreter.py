"""What runs instruction entries (ACPI 6.5, 18.5.1.3 and 18.6.3): OSPM's interpreter, with every step counted.

Linux compares, adds, stalls and jumps by the value it last read or wrote, where the specification says the entry's own
Value field; ``Dialect`` says which is meant.  A table that takes the same way in both is safe (see ``acpi.lint``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from acpi.einj import EinjEntry, EinjInstruction
from acpi.erst import ErstInstruction as I
from acpi.instruction import ALL_ONES, InstructionEntry, InstructionFlags
from acpi.register import Space, access
from cper.wire import DecodeError

MOST_STEPS = 10_000
"""Instructions that one action may take, rounds of STALL_WHILE_TRUE included."""
LONGEST_MOVE = 1 << 20
"""Bytes that one MOVE_DATA may move."""


class Dialect(Enum):
    """Whose reading of the Value field is followed."""

    SPECIFICATION = "specification"
    """The entry's own Value field (18.5.1.3)."""
    LINUX = "linux"
    """The value last read or written (``drivers/acpi/apei/erst.c`` and ``apei-base.c``, 6.1 to 7.2)."""


class Interpreter:
    """One run through a sequence of actions.  Make a new one for each sequence, as Linux does."""

    def __init__(
        self, entries: Iterable[InstructionEntry], space: Space, dialect: Dialect = Dialect.LINUX,
        most_steps: int = MOST_STEPS,
    ) -> None:  # fmt: skip
        self.space, self.dialect, self.most_steps = space, dialect, most_steps
        self.entries: dict[int, list[tuple[int, InstructionEntry]]] = {}
        for index, entry in enumerate(entries):
            self.entries.setdefault(int(entry.action), []).append((index, entry))
        self.value = self.var1 = self.var2 = self.source = self.destination = 0
        self.stalled_us = 0
        """Microseconds that the instructions asked to wait; nobody waits here."""

    def run(self, action: int, value: int | None = None, *, optional: bool = False) -> int:
        """Run an action's instructions with ``value`` as input; what comes out is the value last read.

        Raises DecodeError, with the entry's path, for an action without entries (unless ``optional``), an unknown
        instruction, a register that cannot be reached, and more steps than allowed.
        """
        steps = self.entries.get(int(action), [])
        if not steps and not optional:
            raise DecodeError(
                f"there is no entry for action {int(action):#x}", structure="Instructions", path="entries"
            )
        if value is not None:
            self.value = value & ALL_ONES
        pointer, left = 0, self.most_steps
        while pointer < len(steps):
            index, entry = steps[pointer]
            if left <= 0:
                raise _bad(f"action {int(action):#x} does not end within {self.most_steps} steps", index)
            do = (_EINJ if isinstance(entry, EinjEntry) else _ALL).get(int(entry.instruction))
            if do is None:
                raise _bad(f"instruction {int(entry.instruction)} is unknown", index, "instruction")
            self._left = left - 1
            target = do(self, index, entry, pointer)
            left, pointer = self._left, pointer + 1 if target is None else target
        return self.value

    # -- registers ---------------------------------------------------------------

    def _load(self, index: int, entry: InstructionEntry) -> int:
        size = self._size(index, entry)
        raw = self.space.read(entry.register_region.address_space, entry.register_region.address, size)
        return raw >> entry.register_region.bit_offset & entry.mask

    def _store(self, index: int, entry: InstructionEntry, value: int) -> None:
        size, region = self._size(index, entry), entry.register_region
        full = (1 << 8 * size) - 1
        value = (value & entry.mask) << region.bit_offset & full
        if entry.flags & InstructionFlags.PRESERVE_REGISTER:
            value |= self.space.read(region.address_space, region.address, size) & ~(entry.mask << region.bit_offset)
        self.space.write(region.address_space, region.address, size, value & full)

    def _size(self, index: int, entry: InstructionEntry) -> int:
        size, reason = access(entry.register_region)
        if not size:
            raise _bad(reason, index, "register_region")
        return size

    def _operand(self, entry: InstructionEntry) -> int:
        return self.value if self.dialect is Dialect.LINUX else entry.value

    # -- instructions ------------------------------------------------------------

    def _read_register(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.value = self._load(index, entry)

    def _read_register_value(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.value = int(self._load(index, entry) == entry.value)

    def _write_register(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self._store(index, entry, self.value)

    def _write_register_value(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.value = entry.value
        self._store(index, entry, self.value)

    def _noop(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        pass

    def _load_var1(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.var1 = self._load(index, entry)

    def _load_var2(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.var2 = self._load(index, entry)

    def _store_var1(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self._store(index, entry, self.var1)

    def _add(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.var1 = self.var1 + self.var2 & ALL_ONES

    def _subtract(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.var1 = self.var1 - self.var2 & ALL_ONES

    def _add_value(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self._store(index, entry, self._load(index, entry) + self._operand(entry) & ALL_ONES)

    def _subtract_value(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self._store(index, entry, self._load(index, entry) - self._operand(entry) & ALL_ONES)

    def _stall(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.stalled_us += self._operand(entry)

    def _stall_while_true(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        while self._load(index, entry) == self._operand(entry):
            if self._left <= 0:
                raise _bad(f"the register does not change within {self.most_steps} steps", index)
            self._left -= 1
            self.stalled_us += self.var1

    def _skip(self, index: int, entry: InstructionEntry, pointer: int) -> int | None:
        return pointer + 2 if self._load(index, entry) == self._operand(entry) else None

    def _goto(self, index: int, entry: InstructionEntry, pointer: int) -> int:
        return self._operand(entry) & 0xFFFFFFFF

    def _set_source(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.source = self._load(index, entry)

    def _set_destination(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        self.destination = self._load(index, entry)

    def _move_data(self, index: int, entry: InstructionEntry, pointer: int) -> None:
        offset = self._load(index, entry)
        if self.var2 > LONGEST_MOVE:
            raise _bad(f"{self.var2} bytes is more than {LONGEST_MOVE}", index)
        data = self.space.read_memory(self.source + offset & ALL_ONES, self.var2)
        self.space.write_memory(self.destination + offset & ALL_ONES, data)

    _left: int = 0


Step = Callable[[Interpreter, int, InstructionEntry, int], "int | None"]

_ALL: dict[int, Step] = {
    I.READ_REGISTER: Interpreter._read_register,
    I.READ_REGISTER_VALUE: Interpreter._read_register_value,
    I.WRITE_REGISTER: Interpreter._write_register,
    I.WRITE_REGISTER_VALUE: Interpreter._write_register_value,
    I.NOOP: Interpreter._noop,
    I.LOAD_VAR1: Interpreter._load_var1,
    I.LOAD_VAR2: Interpreter._load_var2,
    I.STORE_VAR1: Interpreter._store_var1,
    I.ADD: Interpreter._add,
    I.SUBTRACT: Interpreter._subtract,
    I.ADD_VALUE: Interpreter._add_value,
    I.SUBTRACT_VALUE: Interpreter._subtract_value,
    I.STALL: Interpreter._stall,
    I.STALL_WHILE_TRUE: Interpreter._stall_while_true,
    I.SKIP_NEXT_INSTRUCTION_IF_TRUE: Interpreter._skip,
    I.GOTO: Interpreter._goto,
    I.SET_SRC_ADDRESS_BASE: Interpreter._set_source,
    I.SET_DST_ADDRESS_BASE: Interpreter._set_destination,
    I.MOVE_DATA: Interpreter._move_data,
}
_EINJ: dict[int, Step] = {int(number): do for number, do in _ALL.items() if number <= EinjInstruction.NOOP}


def _bad(reason: str, index: int, field: str = "") -> DecodeError:
    path = f"entries[{index}]" + (f".{field}" if field else "")
    return DecodeError(reason, structure="Instructions", path=path)


__all__ = ["LONGEST_MOVE", "MOST_STEPS", "Dialect", "Interpreter"]
