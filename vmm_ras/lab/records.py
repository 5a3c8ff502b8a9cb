"""QEMU's serialization device (``hw/acpi/erst.c``): registers for our table, and a store that outlives a boot."""

from __future__ import annotations

import os

from cper.record import Record, RecordHeader
from vmm_ras.io.qemu.qmp import Qtest
from vmm_ras.lab.errors import Failure

SLOT_SIZE = 8192
"""Bytes of a record with its slot; the first slot is the store's own."""
STORE_SIZE = 8 * SLOT_SIZE
PCI_ADDRESS = 2
"""Device number on the first bus."""
REGISTERS = 0x1000_2000
"""Where edk2 puts the registers, when nothing else is on the bus: behind the exchange buffer, which is larger."""
_MAP = 24
"""Where the store's own slot lists the record identifiers, one for each slot; 0: the slot is free."""
_CONFIGURATION = 0x40_1000_0000 + (PCI_ADDRESS << 15)
"""The device's configuration space on QEMU's arm virt machine."""
_COMMAND, _FIRST_BAR = 0x04, 0x10
_DECODE_MEMORY = 1 << 1
_VENDOR_AND_DEVICE = 0x0012_1B36


class RecordStore:
    """The memory file behind the device."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("records")
        os.ftruncate(self.fd, STORE_SIZE)

    def records(self) -> list[Record]:
        """What is kept, in the order of the slots.  Raises DecodeError, TruncatedError."""
        data, length, found = os.pread(self.fd, STORE_SIZE, 0), RecordHeader.at("record_length"), list[Record]()
        for at in range(SLOT_SIZE, STORE_SIZE, SLOT_SIZE):
            listed = _MAP + 8 * (at // SLOT_SIZE)
            if any(data[listed : listed + 8]):  # clearing a record leaves its slot as it is
                size = data[at + length.offset : at + length.offset + length.size]
                found.append(Record.decode(data[at : at + int.from_bytes(size, "little")]))
        return found

    def options(self, path: str) -> list[str]:
        """QEMU's options for the device over the store, which QEMU finds at ``path``."""
        backend = f"memory-backend-file,id=records,size={STORE_SIZE},share=on,mem-path={path}"
        return ["-object", backend, "-device", f"acpi-erst,memdev=records,addr={PCI_ADDRESS:x}.0"]

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)


def turn_on(qtest: Qtest) -> None:
    """Let the device decode its addresses: edk2 assigns them and leaves the rest to a driver, which nobody has.

    Raises Failure where it is somewhere else than the table says.
    """
    found = qtest.read(_CONFIGURATION)
    if found != _VENDOR_AND_DEVICE:
        raise Failure(f"PCI device {PCI_ADDRESS} is {found:#010x}, not QEMU's serialization device")
    at = qtest.read(_CONFIGURATION + _FIRST_BAR) & ~0xF
    if at != REGISTERS:
        raise Failure(f"edk2 put the serialization device's registers at {at:#x}, not at {REGISTERS:#x}")
    qtest.write(_CONFIGURATION + _COMMAND, _DECODE_MEMORY)
