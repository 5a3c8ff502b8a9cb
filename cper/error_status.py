"""Error Status: the word in which memory, bus and component sections say what was detected (UEFI 2.10, N.2.1.2)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.wire import Bits, OpenEnum, Struct, Word


class ErrorStatusType(OpenEnum):
    """What kind of error (Error Type): 1 to 9 detected in a component, 16 to 26 on the bus."""

    INTERNAL = 1
    MEMORY = 4
    TLB = 5
    CACHE = 6
    FUNCTION = 7
    SELF_TEST = 8
    FLOW = 9
    BUS = 16
    MAP = 17
    IMPROPER = 18
    UNIMPLEMENTED = 19
    LOSS_OF_LOCKSTEP = 20
    RESPONSE = 21
    PARITY = 22
    PROTOCOL = 23
    PATH_ERROR = 24
    TIMEOUT = 25
    POISONED = 26


class ErrorStatus(Struct, size=8):
    """Error Status."""

    word: ClassVar[Word] = Word("Q")
    type: Annotated[ErrorStatusType, Bits("word", 8, 16)]
    """What kind of error."""
    address: Annotated[bool, Bits("word", 16, 17)] = False
    """Detected in the address signals or part of a transaction."""
    control: Annotated[bool, Bits("word", 17, 18)] = False
    """Detected in the control signals or part."""
    data: Annotated[bool, Bits("word", 18, 19)] = False
    """Detected in the data signals or part."""
    responder: Annotated[bool, Bits("word", 19, 20)] = False
    """Detected by the responder."""
    requester: Annotated[bool, Bits("word", 20, 21)] = False
    """Detected by the requester."""
    first_error: Annotated[bool, Bits("word", 21, 22)] = False
    """The first of several errors."""
    overflow: Annotated[bool, Bits("word", 22, 23)] = False
    """More errors occurred than could be logged."""
