"""Device registers by guest physical address: where an access that KVM hands out goes (KVM API, KVM_EXIT_MMIO)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from acpi.machine import Range


class Device(Protocol):
    """Registers at offsets from the device's first address; any thread may call."""

    def read(self, offset: int, size: int) -> int:
        """What ``size`` bytes at ``offset`` hold."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Write ``size`` bytes at ``offset``."""

    def reset(self) -> None:
        """As after power-on."""


class Bus:
    """The devices of a machine.  An address that no device has reads as 0, and ``unclaimed`` hears of it once."""

    def __init__(self, unclaimed: Callable[[int, bool], object] = lambda gpa, is_write: None) -> None:
        self._devices: list[tuple[Range, Device]] = []
        self._unclaimed, self._told = unclaimed, set[int]()

    def add(self, place: Range, device: Device) -> None:
        """Put a device there."""
        assert not any(place.overlaps(other) for other, _ in self._devices)
        self._devices.append((place, device))

    def access(self, gpa: int, size: int, data: bytes | None) -> bytes:
        """Write ``data``, or read where that is None; the ``size`` bytes that the guest reads, little-endian."""
        for place, device in self._devices:
            if place.gpa <= gpa and gpa + size <= place.end:
                if data is None:
                    return (device.read(gpa - place.gpa, size) & (1 << 8 * size) - 1).to_bytes(size, "little")
                device.write(gpa - place.gpa, size, int.from_bytes(data[:size], "little"))
                return b""
        page = gpa >> 12
        if page not in self._told and len(self._told) < 64:
            self._told.add(page)
            self._unclaimed(gpa, data is not None)
        return bytes(size)

    def reset(self) -> None:
        """All devices as after power-on."""
        for _, device in self._devices:
            device.reset()
