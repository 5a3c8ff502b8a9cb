"""ACPI RAS Feature Table (ACPI 6.5, 5.2.20) and its shared memory: patrol scrubbing, as ACPI 5.0 had it.

``acpi.ras2`` is its successor; both talk through a PCC subspace whose shared memory has one form.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from acpi.frame import FixedTable, TableHead
from cper.wire import U8, U16, U32, Bits, OpenEnum, Struct, Word, array, blob, u16


class RasfHeader(TableHead, size=48):
    """The whole table."""

    platform_communication_channel_identifier: Annotated[bytes, blob(12)] = bytes(12)
    """The PCC subspace that the feature uses."""


class Rasf(FixedTable[RasfHeader]):
    """ACPI RAS Feature Table (5.2.20)."""

    SIGNATURE = "RASF"
    REVISION = 1
    HEAD = RasfHeader


Range = Annotated[tuple[int, ...], array("Q", 2)]
"""Guest physical address, bytes."""


class PatrolScrubCommand(OpenEnum):
    """What OSPM asks of the scrubber (5.2.20.3, 5.2.21.2)."""

    GET_PATROL_PARAMETERS = 1
    START_PATROL_SCRUBBER = 2
    STOP_PATROL_SCRUBBER = 3


class ParameterBlockHeader(Struct):
    """What every parameter block begins with; not a structure by itself."""

    type: U16
    """Kind of the block."""
    version: U16 = 1
    """Of the block's form."""
    length: U16
    """Bytes of the block, these six included."""


class RasfPatrolScrub(ParameterBlockHeader, size=43):
    """Parameter block for patrol scrubbing (5.2.20.3)."""

    type: U16 = 0
    length: U16 = 43
    command: Annotated[PatrolScrubCommand, u16]
    """What OSPM asks."""
    requested_address_range: Range = (0, 0)
    """What to scrub: guest physical address, bytes."""
    actual_address_range: Range = (0, 0)
    """What the scrubber really covers: guest physical address, bytes."""
    flags: ClassVar[Word] = Word("H")
    running: Annotated[bool, Bits("flags", 0, 1)] = False
    """The scrubber runs."""
    speed: Annotated[int, Bits("flags", 1, 4)] = 0
    """How fast it runs: 0 slow, 4 medium, 7 fast."""
    requested_speed: U8 = 0
    """How fast it shall run."""


class SharedMemoryStatus(OpenEnum):
    """Outcome of the last command (5.2.20.2)."""

    SUCCESS = 0
    NOT_VALID = 1
    NOT_SUPPORTED = 2
    BUSY = 3
    FAILED = 4
    ABORTED = 5
    INVALID_DATA = 6


class RasSharedMemory(Struct, size=48):
    """Shared memory region of the PCC subspace, RASF's and RAS2's alike (5.2.20.2, 5.2.21.1)."""

    signature: U32
    """0x50434300 with the subspace's id in the low bits."""
    command: ClassVar[Word] = Word("H")
    command_code: Annotated[int, Bits("command", 0, 8)] = 1
    """1: execute."""
    generate_sci: Annotated[bool, Bits("command", 15, 16)] = False
    """OSPM wants an interrupt when it is done."""
    status: ClassVar[Word] = Word("H")
    command_complete: Annotated[bool, Bits("status", 0, 1)] = False
    """The platform is done."""
    sci_doorbell: Annotated[bool, Bits("status", 1, 2)] = False
    """The platform has raised the interrupt."""
    error: Annotated[bool, Bits("status", 2, 3)] = False
    """The command failed."""
    outcome: Annotated[SharedMemoryStatus, Bits("status", 3, 8)] = SharedMemoryStatus.SUCCESS
    """How the command went."""
    version: U16 = 1
    """Of this form."""
    features: Annotated[bytes, blob(16)] = bytes(16)
    """Features of the platform, a bit each: 0 patrol scrubbing, 1 logical to physical address (RAS2)."""
    set_capabilities: Annotated[bytes, blob(16)] = bytes(16)
    """The features that OSPM uses with this command."""
    parameter_block_count: U16 = 0
    """Parameter blocks that follow."""
    set_capabilities_status: U32 = 0
    """How setting them went."""


__all__ = [
    "ParameterBlockHeader", "PatrolScrubCommand", "Range", "RasSharedMemory", "Rasf", "RasfHeader", "RasfPatrolScrub",
    "SharedMemoryStatus",
]  # fmt: skip
