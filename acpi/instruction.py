"""Instruction entries (ACPI 6.5, 18.5.1.2 and 18.6.2): what serialization and injection tables are made of.

An *action* is something that OSPM wants done; the entries of an action, in table order, say which registers it touches.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from acpi.gas import GenericAddress
from cper.wire import U8, U64, OpenFlags, Reserved, Struct, Word, u8

ALL_ONES = (1 << 64) - 1


class InstructionFlags(OpenFlags):
    """Flags of an instruction entry."""

    PRESERVE_REGISTER = 1 << 0


class InstructionEntry(Struct, size=32):
    """Instruction entry, the form that both tables share; the tables name the actions and the instructions."""

    action: U8
    """What OSPM wants done."""
    instruction: U8
    """One step of it."""
    flags: Annotated[InstructionFlags, u8] = InstructionFlags(0)
    """PRESERVE_REGISTER: a write keeps the register's bits outside the mask."""
    reserved: ClassVar[Word] = Reserved(1)
    register_region: GenericAddress = GenericAddress()
    """The register that the instruction reads or writes."""
    value: U64 = 0
    """The value that is written or compared."""
    mask: U64 = ALL_ONES
    """The register's bits that count, after its bit offset is taken away."""


__all__ = ["ALL_ONES", "InstructionEntry", "InstructionFlags"]
