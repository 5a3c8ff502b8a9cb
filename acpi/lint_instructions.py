"""What Linux and the specification object to in ERST and EINJ (ACPI 6.5, 18.5.1 and 18.6)."""

from __future__ import annotations

from collections.abc import Set

from acpi.einj import Einj, EinjAction, EinjEntry, EinjInstruction
from acpi.erst import Erst, ErstAction, ErstEntry
from acpi.erst import ErstInstruction as I
from acpi.finding import LINUX, Report
from acpi.instruction import InstructionFlags
from acpi.register import access
from cper.words import counted

_ERST_NEEDED = {
    ErstAction.SET_RECORD_OFFSET, ErstAction.EXECUTE_OPERATION, ErstAction.CHECK_BUSY_STATUS,
    ErstAction.GET_COMMAND_STATUS, ErstAction.GET_RECORD_IDENTIFIER, ErstAction.SET_RECORD_IDENTIFIER,
    ErstAction.GET_RECORD_COUNT, ErstAction.GET_ERROR_LOG_ADDRESS_RANGE,
    ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH, ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES,
}  # fmt: skip
_EINJ_NEEDED = {
    EinjAction.GET_ERROR_TYPE, EinjAction.EXECUTE_OPERATION, EinjAction.CHECK_BUSY_STATUS,
    EinjAction.GET_COMMAND_STATUS, EinjAction.GET_TRIGGER_ERROR_ACTION_TABLE,
}  # fmt: skip
_NO_REGISTER = {I.NOOP, I.ADD, I.SUBTRACT, I.STALL, I.GOTO}
_BY_VALUE = {
    I.ADD_VALUE, I.SUBTRACT_VALUE, I.STALL, I.STALL_WHILE_TRUE, I.SKIP_NEXT_INSTRUCTION_IF_TRUE, I.GOTO,
}  # fmt: skip
"""Instructions whose Value field Linux does not look at."""
_LONGEST_STALL_US = 50


def lint_erst(table: Erst, report: Report) -> None:
    """Everything about the table but what concerns every table."""
    _header(table, table.head.serialization_header_size, "serialization_header_size", report)
    _needed({e.action for e in table.entries}, _ERST_NEEDED, report)
    for index, entry in enumerate(table.entries):
        _entry(entry, f"entries[{index}]", table.offset(index), report)
    _loops(table, report)


def lint_einj(table: Einj, report: Report) -> None:
    """Everything about the table but what concerns every table."""
    _header(table, table.head.injection_header_size, "injection_header_size", report)
    if table.head.injection_flags:
        report.warning("head.injection_flags", 40, f"{table.head.injection_flags:#x} is reserved", "18.6.1")
    actions = {e.action for e in table.entries}
    _needed(actions, _EINJ_NEEDED, report)
    if not actions & {EinjAction.SET_ERROR_TYPE, EinjAction.SET_ERROR_TYPE_WITH_ADDRESS}:
        report.error("entries", table.HEAD.SIZE, "no action says what to inject", "18.6.1")
    for index, entry in enumerate(table.entries):
        path, at = f"entries[{index}]", table.offset(index)
        _entry(entry, path, at, report)
        if entry.action == EinjAction.TRIGGER_ERROR:
            report.warning(f"{path}.action", at, "TRIGGER_ERROR belongs into the trigger table", "18.6.4")
        if entry.action == EinjAction.EINJV2_SET_ERROR_TYPE:
            report.note(f"{path}.action", at, "withdrawn; Linux does not know the action", f"{LINUX} einj-core.c")
        by_address = entry.action == EinjAction.SET_ERROR_TYPE_WITH_ADDRESS
        if by_address and entry.instruction != EinjInstruction.WRITE_REGISTER and report.linux:
            text = "Linux finds the parameters only behind WRITE_REGISTER"
            report.warning(f"{path}.instruction", at + 1, text, f"{LINUX} einj_get_parameter_address")


def _header(table: Erst | Einj, size: int, name: str, report: Report) -> None:
    check = f"{LINUX} {'erst' if isinstance(table, Erst) else 'einj'}_check_table"
    clause = "18.5.1" if isinstance(table, Erst) else "18.6.1"
    if size not in {12, 48}:
        text = f"{size} bytes is neither 48 nor 12"
        (report.error if report.linux else report.warning)(f"head.{name}", 36, text, check if report.linux else clause)
    elif size == 12:
        report.note(f"head.{name}", 36, "12 bytes: the table header is not counted", clause)
    report.reserved(table.head, "head", 0, clause)
    count: int = getattr(table.head, table.COUNT)
    if len(table.trailing) >= table.ENTRY.SIZE and count == len(table.entries):
        room = count + len(table.trailing) // table.ENTRY.SIZE
        text = f"{counted(count, 'entry', 'entries')}, but there is room for {room}"
        (report.error if report.linux else report.warning)(
            f"head.{table.COUNT}", 44, text, check if report.linux else clause
        )
    elif table.trailing:
        at = table.offset(len(table.entries))
        text = f"{counted(len(table.trailing), 'byte lies', 'bytes lie')} behind the last entry"
        report.warning("trailing", at, text, clause)


def _needed(found: Set[ErstAction | EinjAction], needed: Set[ErstAction | EinjAction], report: Report) -> None:
    for action in sorted(needed - found):
        text = f"there is no entry for {action.name}: the operation cannot be done"
        report.error("entries", 48, text, "18.5.1.1" if isinstance(action, ErstAction) else "18.6.1")


def _entry(entry: ErstEntry | EinjEntry, path: str, at: int, report: Report) -> None:
    erst = isinstance(entry, ErstEntry)
    clause = "18.5.1.2" if erst else "18.6.2"
    number = int(entry.instruction)
    if not entry.action.known:
        report.warning(f"{path}.action", at, f"action {int(entry.action):#x} is reserved", clause)
    most = I.MOVE_DATA if erst else EinjInstruction.NOOP
    if number > most:
        text = f"instruction {number} is unknown" + (": Linux refuses the whole table" if report.linux else "")
        report.error(
            f"{path}.instruction", at + 1, text, f"{LINUX} apei_exec_for_each_entry" if report.linux else clause
        )
        return
    if entry.flags & ~InstructionFlags.PRESERVE_REGISTER:
        report.warning(f"{path}.flags", at + 2, f"{int(entry.flags):#x}: reserved bits are set", clause)
    report.reserved(entry, path, at, clause)
    if number not in _NO_REGISTER:
        report.register(entry.register_region, f"{path}.register_region", at + 4, clause)
        _mask(entry, path, at, clause, report)
    if erst and number in _BY_VALUE and report.linux:
        text = f"Linux takes the value that it read or wrote last, not {entry.value:#x}"
        report.warning(f"{path}.value", at + 16, text, f"{LINUX} erst.c")
    if erst and number == I.STALL and entry.value > _LONGEST_STALL_US and report.linux:
        text = f"{entry.value} us: Linux waits {_LONGEST_STALL_US}"
        report.warning(f"{path}.value", at + 16, text, f"{LINUX} erst_exec_stall")


def _mask(entry: ErstEntry | EinjEntry, path: str, at: int, clause: str, report: Report) -> None:
    if entry.mask == 0:
        report.warning(f"{path}.mask", at + 24, "no bit counts", clause)
    compared = int(entry.instruction) in {I.READ_REGISTER_VALUE, I.WRITE_REGISTER_VALUE}
    if compared and entry.value & ~entry.mask:
        report.warning(f"{path}.value", at + 16, f"{entry.value:#x} has bits outside the mask {entry.mask:#x}", clause)
    size, _ = access(entry.register_region)
    if size and entry.mask != (1 << 64) - 1 and entry.mask << entry.register_region.bit_offset >> 8 * size:
        report.note(f"{path}.mask", at + 24, f"{entry.mask:#x} has bits outside the register", clause)


def _loops(table: Erst, report: Report) -> None:
    """A GOTO back to where nothing can leave the loop (by the specification's reading of Value)."""
    groups: dict[int, list[tuple[int, ErstEntry]]] = {}
    for index, entry in enumerate(table.entries):
        groups.setdefault(int(entry.action), []).append((index, entry))
    for steps in groups.values():
        for position, (index, entry) in enumerate(steps):
            if entry.instruction != I.GOTO:
                continue
            path, at = f"entries[{index}].value", table.offset(index) + 16
            inside = {int(e.instruction) for _, e in steps[entry.value : position]}
            if entry.value <= position and not inside & {I.SKIP_NEXT_INSTRUCTION_IF_TRUE, I.GOTO}:
                report.error(path, at, "nothing leaves this loop", "18.5.1.3")
            elif entry.value > len(steps):
                entries = counted(len(steps), "entry", "entries")
                report.note(path, at, f"beyond the action's {entries}: the action ends", "18.5.1.3")


__all__ = ["lint_einj", "lint_erst"]
