"""A small address space for models: memory, and devices at addresses (ACPI 6.5, 5.2.3.2 registers in system memory)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from acpi.gas import AddressSpace


class Device(Protocol):
    """Registers."""

    def read(self, offset: int, size: int) -> int:
        """What the guest reads."""

    def write(self, offset: int, size: int, value: int) -> None:
        """What the guest writes."""


class _Place(NamedTuple):
    base: int
    size: int
    device: Device


class Window:
    """A piece of a bus's memory by offsets: an exchange buffer, a device's memory."""

    def __init__(self, data: bytearray, start: int, size: int) -> None:
        self.data, self.start, self.size = data, start, size

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes; fewer at the end."""
        return bytes(self.data[self.start + offset : self.start + min(offset + size, self.size)])

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``.  Raises OSError where it does not fit."""
        if not 0 <= offset <= self.size - len(data):
            raise OSError(f"{len(data)} bytes at {offset} do not fit {self.size}")
        self.data[self.start + offset : self.start + offset + len(data)] = data


class Bus:
    """Memory from ``base`` on, and devices wherever they are put; what is not there reads all ones."""

    def __init__(self, base: int, size: int) -> None:
        self.base, self.memory = base, bytearray(size)
        self._places: list[_Place] = []

    def attach(self, base: int, size: int, device: Device) -> None:
        """Put a device's registers at ``base``."""
        self._places.append(_Place(base, size, device))

    def window(self, address: int, size: int) -> Window:
        """The memory at ``address``.  Raises ValueError where it is not memory."""
        if not self._is_memory(address, size):
            raise ValueError(f"{size} bytes at {address:#x} are not memory")
        return Window(self.memory, address - self.base, size)

    def read(self, space: AddressSpace, address: int, size: int) -> int:
        """Read a register of 1, 2, 4 or 8 bytes."""
        if space == AddressSpace.SYSTEM_MEMORY:
            for place in self._places:
                if place.base <= address <= place.base + place.size - size:
                    return place.device.read(address - place.base, size)
            if self._is_memory(address, size):
                return int.from_bytes(self.read_memory(address, size), "little")
        return (1 << 8 * size) - 1

    def write(self, space: AddressSpace, address: int, size: int, value: int) -> None:
        """Write a register of 1, 2, 4 or 8 bytes."""
        if space != AddressSpace.SYSTEM_MEMORY:
            return
        for place in self._places:
            if place.base <= address <= place.base + place.size - size:
                place.device.write(address - place.base, size, value)
                return
        if self._is_memory(address, size):
            self.write_memory(address, value.to_bytes(size, "little"))

    def read_memory(self, address: int, size: int) -> bytes:
        """Read memory; what is not memory reads all ones."""
        if not self._is_memory(address, size):
            return b"\xff" * size
        return bytes(self.memory[address - self.base : address - self.base + size])

    def write_memory(self, address: int, data: bytes) -> None:
        """Write memory; what is not memory stays as it is."""
        if self._is_memory(address, len(data)):
            self.memory[address - self.base : address - self.base + len(data)] = data

    def _is_memory(self, address: int, size: int) -> bool:
        return self.base <= address <= self.base + len(self.memory) - size


__all__ = ["Bus", "Device", "Window"]
