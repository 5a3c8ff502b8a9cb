"""PCI/PCI-X Bus Error section (UEFI 2.10, N.2.8)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.error_status import ErrorStatus
from cper.section import Section
from cper.wire import U64, Bits, OpenEnum, Reserved, Struct, Valid, ValidationBits, Word, u16


class PciBusErrorType(OpenEnum):
    """What happened on the bus (Error Type)."""

    UNKNOWN = 0
    DATA_PARITY_ERROR = 1
    SYSTEM_ERROR = 2
    MASTER_ABORT = 3
    BUS_TIMEOUT = 4
    MASTER_DATA_PARITY_ERROR = 5
    ADDRESS_PARITY_ERROR = 6
    COMMAND_PARITY_ERROR = 7


class PciBusId(Struct, size=2):
    """Which bus (Bus Id)."""

    word: ClassVar[Word] = Word("H")
    bus: Annotated[int, Bits("word", 0, 8)]
    """Bus number."""
    segment: Annotated[int, Bits("word", 8, 16)] = 0
    """Segment number."""


class PciBusCommand(Struct, size=8):
    """The bus command or operation at the time of the error (Bus Command)."""

    word: ClassVar[Word] = Word("Q")
    command: Annotated[int, Bits("word", 0, 56)]
    """As it was on the bus."""
    pci_x: Annotated[bool, Bits("word", 56, 57)] = False
    """A command of PCI-X, else of PCI."""


class PciBus(Section, size=72, guid="c5753963-3b84-4095-bf78-eddad3f9c9dd"):
    """An error on a PCI or PCI-X bus."""

    validation_bits: ClassVar[Word] = ValidationBits("Q")
    error_status: Annotated[ErrorStatus | None, Valid(0)] = None
    """What was detected."""
    error_type: Annotated[PciBusErrorType | None, u16, Valid(1)] = None
    """What happened on the bus."""
    bus_id: Annotated[PciBusId | None, Valid(2)] = None
    """Which bus."""
    reserved: ClassVar[Word] = Reserved(4)
    bus_address: Annotated[U64 | None, Valid(3)] = None
    """Memory or I/O address on the bus at the time of the error."""
    bus_data: Annotated[U64 | None, Valid(4)] = None
    """Data on the bus at the time of the error."""
    bus_command: Annotated[PciBusCommand | None, Valid(5)] = None
    """Command on the bus at the time of the error."""
    requestor_id: Annotated[U64 | None, Valid(6)] = None
    """Bus Requestor Id."""
    completer_id: Annotated[U64 | None, Valid(7)] = None
    """Bus Completer Id."""
    target_id: Annotated[U64 | None, Valid(8)] = None
    """Target Id."""
