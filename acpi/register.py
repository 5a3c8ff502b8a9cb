"""Registers behind a Generic Address Structure (ACPI 6.5, 5.2.3.2), and the pair of registers that our devices have."""

from __future__ import annotations

from typing import Protocol

from acpi.gas import AddressSpace, GenericAddress

ACTION, VALUE = 0, 8
"""Offsets of the two registers of an action device."""
REGISTERS_SIZE = 16
"""Bytes of an action device's registers."""
ALL_ONES = (1 << 64) - 1


class Space(Protocol):
    """What instructions reach: registers, and memory as bytes.  Addresses are the guest's physical ones."""

    def read(self, space: AddressSpace, address: int, size: int) -> int:
        """Read a register of 1, 2, 4 or 8 bytes."""

    def write(self, space: AddressSpace, address: int, size: int, value: int) -> None:
        """Write a register of 1, 2, 4 or 8 bytes."""

    def read_memory(self, address: int, size: int) -> bytes:
        """Read memory."""

    def write_memory(self, address: int, data: bytes) -> None:
        """Write memory."""


def access(register: GenericAddress) -> tuple[int, str]:
    """How Linux reaches a register (``apei_check_gar``): (bytes of an access, ""), or (0, why it refuses)."""
    if register.address == 0:
        return 0, "the address is 0"
    if not 1 <= register.access_size <= 4:
        return 0, f"access size {int(register.access_size)} is not 1 to 4"
    size = 1 << register.access_size - 1
    if (
        register.bit_offset == 0
        and register.bit_width in {32, 64}
        and register.address % (register.bit_width // 8) == 0
    ):
        size = max(size, register.bit_width // 8)
    if register.bit_width + register.bit_offset > 8 * size:
        return (
            0,
            f"bits {register.bit_offset} to {register.bit_offset + register.bit_width} pass an access of {size} bytes",
        )
    if register.address_space not in {AddressSpace.SYSTEM_MEMORY, AddressSpace.SYSTEM_IO}:
        return 0, f"address space {register.address_space.plain} is neither system memory nor system I/O"
    return size, ""


class ActionRegisters:
    """Two 64-bit registers, ACTION and VALUE: writing ACTION does something, whose argument and result are in VALUE.

    Subclasses do it in :meth:`act`.  Accesses of 1, 2, 4 and 8 bytes are taken; others read 0 and write nothing.
    """

    value: int = 0

    def act(self, action: int) -> None:
        """Do what a write of ``action`` asks for."""
        raise NotImplementedError

    def read(self, offset: int, size: int) -> int:
        """What the guest reads.  ACTION reads 0."""
        if size not in {1, 2, 4, 8} or not VALUE <= offset <= VALUE + 8 - size:
            return 0
        return self.value >> 8 * (offset - VALUE) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """What the guest writes.  ACTION acts on a write of its low bytes; the rest of it is nothing."""
        if size not in {1, 2, 4, 8}:
            return
        value &= (1 << 8 * size) - 1
        if offset == ACTION:
            self.act(value)
        elif VALUE <= offset <= VALUE + 8 - size:
            shift = 8 * (offset - VALUE)
            self.value = self.value & ~((1 << 8 * size) - 1 << shift) & ALL_ONES | value << shift


__all__ = ["ACTION", "REGISTERS_SIZE", "VALUE", "ActionRegisters", "Space", "access"]
