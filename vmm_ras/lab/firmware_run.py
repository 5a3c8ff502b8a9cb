"""What a guest's firmware does with QEMU's own ACPI tables, done from outside: fw_cfg's DMA interface by qtest.

QEMU ``docs/specs/fw_cfg.rst``: the files' directory, a DMA access structure in guest RAM, its address into a register.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from acpi.linking import SCRIPT_FILE, Placed, execute
from acpi.loader import LoaderScript
from vmm_ras.io.qemu.machine import SharedRam
from vmm_ras.io.qemu.qmp import Qtest
from vmm_ras.lab.errors import Failure

DMA_REGISTER = 0x0902_0010
"""Of machine ``virt``; the address is written with its most significant byte first."""
DIRECTORY = 0x19
SELECT, READ, WRITE = 8, 2, 16
_ACCESS = struct.Struct(">IIQ")
_ENTRY = struct.Struct(">IHH56s")
_PREFIXES = ("etc/acpi", "etc/hardware_errors", "etc/table-loader")


class Files(NamedTuple):
    """One file of fw_cfg."""

    size: int
    key: int


class Firmware:
    """``scratch``: guest RAM for the transfers, zeroed by ``run``; ``tables``: where the tables go."""

    def __init__(self, qtest: Qtest, ram: SharedRam, scratch: int, tables: int) -> None:
        self.qtest, self.ram, self.scratch, self.tables = qtest, ram, scratch, tables

    def run(self) -> Placed:
        """Place the tables, and tell QEMU the addresses that its script asks for.  Raises Failure."""
        files = self._directory()
        content = {name: self._read(file) for name, file in files.items() if name.startswith(_PREFIXES)}
        placed = execute(LoaderScript.parse(content[SCRIPT_FILE]), content, base=self.tables)
        for gpa, data in placed.files.values():
            self.ram.write(gpa, data)
        for name, data in placed.written.items():
            self.ram.write(self._data, data)
            self._transfer(files[name].key, WRITE, len(data))
        self.ram.write(self.scratch, bytes(1 << 20))
        return placed

    @property
    def _data(self) -> int:
        return self.scratch + 4096

    def _directory(self) -> dict[str, Files]:
        self._transfer(DIRECTORY, READ, 4)
        count = min(int.from_bytes(self.ram.read(self._data, 4), "big"), 1000)
        self._transfer(DIRECTORY, READ, 4 + count * _ENTRY.size)
        raw = self.ram.read(self._data + 4, count * _ENTRY.size)
        return {
            name.partition(b"\0")[0].decode(): Files(size, key) for size, key, _, name in _ENTRY.iter_unpack(raw)
        }  # fmt: skip

    def _read(self, file: Files) -> bytes:
        self._transfer(file.key, READ, file.size)
        return self.ram.read(self._data, file.size)

    def _transfer(self, key: int, control: int, size: int) -> None:
        self.ram.write(self.scratch, _ACCESS.pack(key << 16 | SELECT | control, size, self._data))
        self.qtest.write(DMA_REGISTER, int.from_bytes(self.scratch.to_bytes(8, "big"), "little"), 8)
        if self.ram.read(self.scratch, 4) != bytes(4):
            raise Failure(f"fw_cfg: transfer of {size} bytes, key {key:#x}: not carried out")
