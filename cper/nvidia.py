"""NVIDIA section of Grace (Linux drivers/acpi/apei/ghes-nvidia.c; libcper; rasdaemon): registers of a unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import construct as c

from cper.framed import FramedSection, Head, Many, Upto
from cper.wire import U8, U16, U64, Reserved, Struct, Word, text


class NvidiaHead(Struct, size=32):
    """What precedes the registers."""

    signature: Annotated[str, text(16)]
    """Name of the unit."""
    error_type: U16 = 0
    error_instance: U16 = 0
    severity: U8 = 0
    """0 recoverable, 1 fatal, 2 corrected, 3 informational."""
    socket: U8 = 0
    register_count: U8 = 0
    """Registers that follow (Number Regs)."""
    reserved: ClassVar[Word] = Reserved(1)
    instance_base: U64 = 0
    """Address of the unit's registers."""


class NvidiaRegister(Struct, size=16):
    """A register of the unit."""

    address: U64
    value: U64


@dataclass(frozen=True)
class Nvidia(FramedSection[NvidiaHead], guid="6d5244f2-2712-11ec-bea7-cb3fdb95c786"):
    """An error of a unit of an NVIDIA SoC."""

    FRAME = c.Struct(
        "head" / Head(NvidiaHead),
        "registers" / Many(NvidiaRegister, NvidiaHead, "register_count"),
        "trailing" / Upto(),
    )

    registers: tuple[NvidiaRegister, ...] = ()
    """Registers of the unit."""
    trailing: bytes = b""
    """Bytes behind them."""

    @classmethod
    def of(cls, signature: str, registers: Iterable[NvidiaRegister] = (), **fields: Any) -> Self:
        """The section with these registers; ``fields`` are those of its head."""
        found = tuple(registers)
        return cls(NvidiaHead(**({"signature": signature, "register_count": len(found)} | fields)), found)
