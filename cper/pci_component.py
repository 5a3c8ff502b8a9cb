"""PCI/PCI-X Component Error section (UEFI 2.10, N.2.9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import construct as c

from cper.error_status import ErrorStatus
from cper.framed import FramedSection, Head, Many, Upto
from cper.wire import U8, U16, U24, U32, U64, Bits, Reserved, Struct, Valid, ValidationBits, Word


class PciDeviceId(Struct, size=16):
    """Which component (Id Info)."""

    vendor_id: U16
    device_id: U16
    class_code: U24 = 0
    """Base class (23:16), sub-class (15:8), programming interface (7:0)."""
    function: U8 = 0
    device: U8 = 0
    bus: U8 = 0
    segment: U8 = 0
    reserved: ClassVar[Word] = Reserved(5)


class PciRegister(Struct, size=16):
    """A register of the component (Register Data Pair)."""

    address: U64
    value: U64


class PciComponentHead(Struct, size=40):
    """What precedes the register data pairs of a PCI/PCI-X Component Error section."""

    validation_bits: ClassVar[Word] = ValidationBits("Q")
    registers_valid: Annotated[bool, Bits("validation_bits", 4, 5)] = False
    """Whether register data pairs follow."""
    error_status: Annotated[ErrorStatus | None, Valid(0)] = None
    """What was detected."""
    id_info: Annotated[PciDeviceId | None, Valid(1)] = None
    """Which component."""
    memory_number: Annotated[U32 | None, Valid(2)] = None
    """Register data pairs of memory space."""
    io_number: Annotated[U32 | None, Valid(3)] = None
    """Register data pairs of I/O space, behind those."""


@dataclass(frozen=True)
class PciComponent(FramedSection[PciComponentHead], guid="eb5e4685-ca66-4769-b6a2-26068b001326"):
    """An error of a PCI or PCI-X component.

    Pairs are read where both their own validation bit and that of their number are set; else they are trailing bytes.
    """

    FRAME = c.Struct(
        "head" / Head(PciComponentHead),
        "memory_registers" / Many(PciRegister, PciComponentHead, "memory_number", valid="registers_valid"),
        "io_registers" / Many(PciRegister, PciComponentHead, "io_number", valid="registers_valid"),
        "trailing" / Upto(),
    )

    memory_registers: tuple[PciRegister, ...] = ()
    """Registers of memory space."""
    io_registers: tuple[PciRegister, ...] = ()
    """Registers of I/O space."""
    trailing: bytes = b""
    """Bytes behind the last pair."""

    @classmethod
    def of(cls, *, memory: Iterable[PciRegister] = (), io: Iterable[PciRegister] = (), **fields: Any) -> Self:
        """The section with these registers; ``fields`` are those of its head."""
        first, second = tuple(memory), tuple(io)
        counts = {"memory_number": len(first), "io_number": len(second), "registers_valid": bool(first or second)}
        return cls(PciComponentHead(**(counts | fields)), first, second)
