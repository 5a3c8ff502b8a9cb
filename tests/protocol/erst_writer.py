"""A process that writes records through the serialization table until it is killed: what ``test_erst.py`` kills.

After each acknowledged operation it prints a line, ``w ID VERSION LENGTH`` or ``c ID``; before each it prints the same
with ``?`` before it.  A pipe keeps what was printed when the process dies.
"""

from __future__ import annotations

import os
import random
import sys

from acpi.bus import Bus
from acpi.erst import ErstStatus
from acpi.erst_device import ErstDevice, erst_table
from acpi.ospm import ErstClient
from cper.memory import PlatformMemory
from cper.record import Record
from vmm_ras.io.erst_file import ErstFile

RECORDS, RECORD_SIZE = 12, 4096
RAM, REGISTERS = 0x8000_0000, 0x900_0000


def record(record_id: int, version: int) -> bytes:
    """A record whose bytes follow from its identifier and version."""
    rng = random.Random(record_id << 32 | version)
    sections = [PlatformMemory(physical_address=rng.getrandbits(48)) for _ in range(1 + rng.randrange(20))]
    return Record.of(sections, record_id=record_id, persistence_information=version).encode()


def client(file: ErstFile) -> ErstClient:
    """A guest that reaches the store through table, registers and exchange buffer."""
    bus = Bus(RAM, 0x1_0000)
    device = ErstDevice(file.store, bus.window(RAM, RECORD_SIZE), RAM)
    bus.attach(REGISTERS, 16, device)
    return ErstClient(erst_table(REGISTERS), bus)


def main(path: str, seed: int) -> None:
    """Write and clear for ever."""
    rng = random.Random(seed)
    with ErstFile.open(path, RECORDS, RECORD_SIZE) as file:
        guest = client(file)
        version = seed << 20
        while True:
            record_id, version = 1 + rng.randrange(RECORDS + 2), version + 1
            clear = rng.random() < 0.2
            line = f"c {record_id}" if clear else f"w {record_id} {version}"
            os.write(1, f"? {line}\n".encode())
            if clear:
                status = guest.clear(record_id)
                done = status in {ErstStatus.SUCCESS, ErstStatus.RECORD_NOT_FOUND}
                assert done, status
            else:
                status = guest.write(record(record_id, version))
                assert status in {ErstStatus.SUCCESS, ErstStatus.NOT_ENOUGH_SPACE}, status
                if status == ErstStatus.NOT_ENOUGH_SPACE:
                    line = "-"
            os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
