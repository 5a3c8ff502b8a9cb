"""The injection device (ACPI 6.5, 18.6): registers, parameter buffer and trigger table, and what they do.

OSPM fills the parameter buffer, executes, and runs the trigger table; the device decodes what it asks for and calls
back twice: ``plant`` when it executes (the platform may refuse), ``trigger`` when the error shall happen.  The guest's
misbehaviour is a command status, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from acpi.einj import (
    Einj,
    EinjAction,
    EinjEntry,
    EinjStatus,
    Einjv2ErrorType,
    ErrorType,
    TriggerTable,
)
from acpi.einj import EinjInstruction as I
from acpi.einj_parameters import Einjv2Component, InjectionParameters, SetErrorTypeWithAddress, TargetFlags
from acpi.erst_device import Exchange
from acpi.gas import AccessSize, GenericAddress
from acpi.instruction import ALL_ONES
from acpi.register import ACTION, VALUE, ActionRegisters
from acpi.table import TableHeader
from cper.wire import WireError

PARAMETERS_SIZE = 2048
"""Bytes of the parameter buffer, at the start of the device's memory."""
TRIGGER_AT = PARAMETERS_SIZE
"""Where the trigger table lies in the device's memory."""
MEMORY_SIZE = 4096
"""Bytes of the device's memory: parameter buffer and trigger table."""
COMPONENTS = 8
"""Room for components of an EINJ version 2 injection."""
TYPICAL_US, LONGEST_US = 10, 1_000
"""Microseconds that an execution takes."""

MEMORY_ERRORS = ErrorType(ErrorType.MEMORY_CORRECTABLE | ErrorType.MEMORY_UNCORRECTABLE | ErrorType.MEMORY_FATAL)
NO_ERRORS_V2 = Einjv2ErrorType(0)


class Injection(NamedTuple):
    """What the guest wants injected.  A field is None where the guest did not say."""

    error_type: ErrorType
    """One bit; none in a version 2 injection."""
    flags: TargetFlags = TargetFlags(0)
    """Which of the fields below the guest gave."""
    processor_id: int | None = None
    memory_address: int | None = None
    memory_address_mask: int | None = None
    pcie_sbdf: tuple[int, int, int, int] | None = None
    """Segment, bus, device, function."""
    einjv2_error_type: Einjv2ErrorType | None = None
    """One bit, in a version 2 injection."""
    components: tuple[Einjv2Component, ...] = ()
    vendor_data: bytes = b""
    """The vendor's extension as the guest left it, without its header."""

    @property
    def is_memory(self) -> bool:
        """Whether memory is to be hit."""
        if self.einjv2_error_type is not None:
            return bool(self.einjv2_error_type & Einjv2ErrorType.MEMORY)
        return bool(self.error_type & MEMORY_ERRORS)

    @property
    def memory_range(self) -> tuple[int, int] | None:
        """(guest physical address, bytes) that address and mask select: a power of two; None without an address."""
        if self.memory_address is None:
            return None
        mask = self.memory_address_mask or ALL_ONES
        size = mask & -mask
        return self.memory_address & -size & ALL_ONES, size


@dataclass(frozen=True)
class EinjState:
    """What the registers know; a snapshot of the device is this and the device's memory."""

    value: int = 0
    status: EinjStatus = EinjStatus.SUCCESS
    error_type: int | None = None
    """Set with SET_ERROR_TYPE since the operation began."""
    armed: bytes | None = None
    """The parameters of an injection that was executed and not yet triggered."""


def _accept(injection: Injection) -> EinjStatus:
    return EinjStatus.SUCCESS


class EinjDevice(ActionRegisters):
    """Registers over ``memory`` (``MEMORY_SIZE`` bytes, which the guest finds at ``address``)."""

    def __init__(
        self, memory: Exchange, address: int, registers: int, trigger: Callable[[Injection], object], *,
        plant: Callable[[Injection], EinjStatus] = _accept, supported: ErrorType = MEMORY_ERRORS,
        supported_v2: Einjv2ErrorType = NO_ERRORS_V2, state: EinjState | None = None,
    ) -> None:  # fmt: skip
        self.memory, self.address, self.registers = memory, address, registers
        self.trigger, self.plant = trigger, plant
        self.supported = ErrorType(supported | (ErrorType.EINJV2_SUPPORTED if supported_v2 else 0))
        self.supported_v2 = supported_v2
        self.state = state or EinjState()

    @property
    def value(self) -> int:
        """The VALUE register."""
        return self.state.value

    @value.setter
    def value(self, value: int) -> None:
        self.state = replace(self.state, value=value)

    def reset(self, vendor: bytes = b"") -> None:
        """Registers and memory as the guest finds them at boot; ``vendor``: a vendor's extension with its data."""
        components = COMPONENTS if self.supported_v2 else 0
        blank = InjectionParameters.blank(PARAMETERS_SIZE, components, vendor)
        self.memory.write(0, blank.ljust(MEMORY_SIZE, b"\0"))
        self.memory.write(TRIGGER_AT, trigger_table(self.registers).encode())
        self.state = EinjState()

    def act(self, action: int) -> None:
        """Do what a write of ``action`` asks for; an unknown one does nothing."""
        match EinjAction(action):
            case EinjAction.BEGIN_INJECTION_OPERATION | EinjAction.END_OPERATION:
                self.state = replace(self.state, error_type=None, armed=None)
            case EinjAction.GET_TRIGGER_ERROR_ACTION_TABLE:
                self.value = self.address + TRIGGER_AT
            case EinjAction.SET_ERROR_TYPE:
                self.state = replace(self.state, error_type=self.value & 0xFFFFFFFF)
            case EinjAction.GET_ERROR_TYPE:
                self.value = int(self.supported)
            case EinjAction.EINJV2_GET_ERROR_TYPE:
                self.value = int(self.supported_v2)
            case EinjAction.EXECUTE_OPERATION:
                self.state = replace(self.state, armed=None)
                status = self._execute()  # may change the state
                self.state = replace(self.state, status=status)
            case EinjAction.CHECK_BUSY_STATUS:
                self.value = 0
            case EinjAction.GET_COMMAND_STATUS:
                self.value = int(self.state.status)
            case EinjAction.GET_EXECUTE_OPERATION_TIMINGS:
                self.value = LONGEST_US << 32 | TYPICAL_US
            case EinjAction.TRIGGER_ERROR if self.state.armed is not None:
                armed, self.state = self.state.armed, replace(self.state, armed=None)
                self.trigger(decode_injection(armed))
            case _:
                pass

    def _execute(self) -> EinjStatus:
        try:
            raw = self.memory.read(0, PARAMETERS_SIZE)  # once: the guest may change it at any moment
            if self.state.error_type is not None:
                raw = SetErrorTypeWithAddress(error_type=ErrorType(self.state.error_type)).encode()
            injection = decode_injection(raw)
        except (WireError, OSError):
            return EinjStatus.INVALID_ACCESS
        if not self._possible(injection):
            return EinjStatus.INVALID_ACCESS
        status = self.plant(injection)
        if status == EinjStatus.SUCCESS:
            self.state = replace(self.state, armed=raw)
        return status

    def _possible(self, injection: Injection) -> bool:
        if injection.einjv2_error_type is not None:
            return injection.einjv2_error_type.bit_count() == 1 and bool(
                injection.einjv2_error_type & self.supported_v2
            )
        vendor = injection.error_type & ErrorType.VENDOR_DEFINED
        rest = injection.error_type & ~ErrorType.VENDOR_DEFINED
        if vendor:
            return bool(self.supported & ErrorType.VENDOR_DEFINED) and rest.bit_count() <= 1
        return rest.bit_count() == 1 and bool(rest & self.supported & ~ErrorType.EINJV2_SUPPORTED)


def decode_injection(parameters: bytes) -> Injection:
    """What a parameter buffer asks for.  Raises DecodeError, TruncatedError."""
    found = InjectionParameters.decode(parameters)
    target, flags = found.target, found.target.flags
    memory, v2 = bool(flags & TargetFlags.MEMORY), bool(flags & TargetFlags.EINJV2)
    return Injection(
        ErrorType(0) if v2 else target.error_type,
        flags,
        target.processor_id if flags & TargetFlags.PROCESSOR else None,
        target.memory_address if memory else None,
        target.memory_address_mask if memory else None,
        (target.pcie_segment, target.pcie_bus, target.pcie_device, target.pcie_function)
        if flags & TargetFlags.PCIE_SBDF
        else None,
        found.einjv2_error_type if v2 else None,
        found.components or (),
        found.vendor_data,
    )


def trigger_table(registers: int) -> TriggerTable:
    """The trigger table of a device whose registers are at ``registers``: one write, which makes the error happen.

    The register is one of the injection table's own: Linux would have to ask for any other, and may not get it.
    """
    return TriggerTable.of([_entry(registers + ACTION, EinjAction.TRIGGER_ERROR, I.WRITE_REGISTER_VALUE, 32, 0xFF)])


def einj_table(registers: int, memory: int, *, einjv2: bool = False, header: TableHeader | None = None) -> Einj:
    """The table of a device: registers at ``registers``, its memory at ``memory``; ``header`` gives the OEM's words."""
    entries: list[EinjEntry] = []
    for action in EinjAction:
        if action in {EinjAction.TRIGGER_ERROR, EinjAction.EINJV2_SET_ERROR_TYPE}:
            continue
        if action == EinjAction.EINJV2_GET_ERROR_TYPE and not einjv2:
            continue
        if action == EinjAction.SET_ERROR_TYPE_WITH_ADDRESS:
            entries.append(_entry(memory, action, I.WRITE_REGISTER, 32))
            continue
        if action == EinjAction.SET_ERROR_TYPE:
            entries.append(_entry(registers + VALUE, action, I.WRITE_REGISTER, 32))
        entries.append(_entry(registers + ACTION, action, I.WRITE_REGISTER_VALUE, 32, int(action)))
        if action in _RESULTS:
            busy = action == EinjAction.CHECK_BUSY_STATUS
            kind = I.READ_REGISTER_VALUE if busy else I.READ_REGISTER
            entries.append(_entry(registers + VALUE, action, kind, _RESULTS[action], int(busy)))
    return Einj.of(entries, header)


def _entry(address: int, action: EinjAction, instruction: I, bits: int, value: int = 0) -> EinjEntry:
    access = AccessSize.QWORD if bits == 64 else AccessSize.DWORD
    region = GenericAddress(bit_width=bits, access_size=access, address=address)
    return EinjEntry(
        action=action, instruction=instruction, register_region=region, value=value, mask=ALL_ONES >> 64 - bits
    )


_RESULTS: dict[EinjAction, int] = {
    EinjAction.GET_TRIGGER_ERROR_ACTION_TABLE: 64,
    EinjAction.GET_ERROR_TYPE: 32,
    EinjAction.CHECK_BUSY_STATUS: 32,
    EinjAction.GET_COMMAND_STATUS: 32,
    EinjAction.GET_EXECUTE_OPERATION_TIMINGS: 64,
    EinjAction.EINJV2_GET_ERROR_TYPE: 32,
}
"""Actions that read VALUE after they act: its width."""

__all__ = [
    "MEMORY_ERRORS", "MEMORY_SIZE", "PARAMETERS_SIZE", "TRIGGER_AT", "EinjDevice", "EinjState", "Injection",
    "decode_injection", "einj_table", "trigger_table",
]  # fmt: skip
