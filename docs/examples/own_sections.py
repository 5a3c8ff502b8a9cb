"""Two section types of a vendor: one as a construct declaration, one as a class.  ``--section`` takes this file."""

from typing import Annotated, ClassVar

import construct as c

from cper.construct_section import construct_section
from cper.section import Section
from cper.wire import U16, U32, OpenEnum, Valid, ValidationBits, Word, u8

Fans = construct_section(
    "Fans",
    "5f0e9a51-3a0b-4a6e-9d5e-0c6f3a1d7b10",
    c.Struct(
        "chassis" / c.Int16ul,
        "count" / c.Int8ul,
        "cause" / c.Enum(c.Int8ul, stalled=1, missing=2),
        "rpm" / c.Array(c.this.count, c.Int16ul),
    ),
)


class Rail(OpenEnum):
    """Which supply."""

    CORE = 0
    MEMORY = 1


class PowerRail(Section, size=16, guid="5f0e9a51-3a0b-4a6e-9d5e-0c6f3a1d7b11"):
    """A supply outside its limits."""

    validation_bits: ClassVar[Word] = ValidationBits("I")
    rail: Annotated[Rail, u8] = Rail.CORE
    """Which one."""
    phase: Annotated[int, u8] = 0
    """Phase of it."""
    socket: Annotated[U16 | None, Valid(0)] = None
    """Of the board."""
    millivolts: Annotated[U32 | None, Valid(1)] = None
    """What was measured."""
    limit: Annotated[U32 | None, Valid(2)] = None
    """Millivolts: the limit that was passed."""
