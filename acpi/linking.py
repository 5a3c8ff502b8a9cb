"""A model of what firmware does with a linker/loader script (edk2 ``QemuFwCfgAcpi.c``, SeaBIOS ``romfile_loader.c``).

Every file of the script gets whole pages of its own; pointers, checksums and written-back addresses follow.  Where the
two firmwares differ the stricter one, edk2, is followed: a script that passes here passes in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acpi.loader import (
    COMMAND_SIZE,
    MAX_ALIGNMENT,
    NAME_SIZE,
    POINTER_SIZES,
    AddChecksum,
    AddPointer,
    Allocate,
    Command,
    LoaderScript,
    WritePointer,
)
from acpi.table import checksum
from cper.wire import DecodeError

PAGE = 4096
MAX_PLACED = 256 << 20
"""Bytes of all files together."""
MAX_SUMMED = 64 << 20
"""Bytes of all checksum ranges together: no script drives unbounded work."""
RSDP_FILE = "etc/acpi/rsdp"
TABLES_FILE = "etc/acpi/tables"
ERRORS_FILE = "etc/hardware_errors"
BOOT_ERRORS_FILE = "etc/boot_errors"
SCRIPT_FILE = "etc/table-loader"
ERRORS_ADDRESS_FILE = "etc/hardware_errors_addr"
HEST_ADDRESS_FILE = "etc/acpi_table_hest_addr"


@dataclass(frozen=True)
class Placed:
    """Guest memory after the script ran."""

    files: Mapping[str, tuple[int, bytes]]
    """File to (guest physical address, bytes)."""
    written: Mapping[str, bytes]
    """Writable files as the VMM finds them."""

    @property
    def rsdp(self) -> int:
        """Guest physical address of the RSDP.  Raises KeyError where the script placed none."""
        return self.files[RSDP_FILE][0]

    def read(self, gpa: int, size: int) -> bytes:
        """``size`` bytes at a guest physical address; bytes behind a file's end, up to the page's, are 0.

        Raises DecodeError outside every placed file.
        """
        for start, data in self.files.values():
            if start <= gpa and gpa + size <= start + align_up(len(data), PAGE):
                return data[gpa - start : gpa - start + size].ljust(size, b"\0")
        raise DecodeError(f"{size} bytes at {gpa:#x} are outside every placed file", structure="Placed")


def execute(
    script: LoaderScript, files: Mapping[str, bytes], *, base: int = 0x4000_0000, at: Mapping[str, int] | None = None
) -> Placed:
    """Run a script over the files of fw_cfg.

    Files go to the pages from guest physical address ``base`` on, in the order of the script; ``at`` gives the address
    of single files.  Raises DecodeError with the number of the command for whatever firmware would refuse.
    """
    return _Run(files, base, dict(at or {})).run(script)


class _Run:
    """One execution: what was placed so far."""

    def __init__(self, files: Mapping[str, bytes], base: int, at: dict[str, int]) -> None:
        self.files, self.next, self.at = files, align_up(base, PAGE), at
        self.where: dict[str, int] = {}
        self.data: dict[str, bytearray] = {}
        self.written: dict[str, bytearray] = {}
        self.summed = self.placed = 0

    def run(self, script: LoaderScript) -> Placed:
        for index, command in enumerate(script.commands):
            try:
                if isinstance(command, Allocate):
                    self._allocate(command)
                elif isinstance(command, AddPointer):
                    self._add_pointer(command)
                elif isinstance(command, AddChecksum):
                    self._add_checksum(command)
                elif isinstance(command, WritePointer):
                    self._write_pointer(command)
            except DecodeError as error:
                raise error.within("LoaderScript", f"commands[{index}]", index * COMMAND_SIZE) from None
        placed = {name: (self.where[name], bytes(data)) for name, data in self.data.items()}
        return Placed(placed, {name: bytes(data) for name, data in self.written.items()})

    def _allocate(self, command: Allocate) -> None:
        name = self._name(command, "file", command.file)
        if name in self.data:
            raise _wrong(command, "file", f"{name!r} is allocated already")
        if name not in self.files:
            raise _wrong(command, "file", f"fw_cfg has no file {name!r}")
        alignment = command.alignment
        if not 1 <= alignment <= MAX_ALIGNMENT or alignment & alignment - 1:
            raise _wrong(command, "alignment", f"{alignment} is no power of two up to {MAX_ALIGNMENT}")
        content = self.files[name]
        self.placed += len(content)
        if self.placed > MAX_PLACED:
            raise _wrong(command, "file", f"the files have more than {MAX_PLACED} bytes together")
        where = self.at.get(name)
        if where is None:
            where, self.next = self.next, self.next + align_up(max(len(content), 1), PAGE)
        elif where % alignment:
            raise _wrong(command, "alignment", f"{where:#x} is not aligned to {alignment}")
        self.where[name], self.data[name] = where, bytearray(content)

    def _add_pointer(self, command: AddPointer) -> None:
        pointer = self._file(command, "pointer_file", command.pointer_file)
        pointee = self._file(command, "pointee_file", command.pointee_file)
        low, high = command.pointer_offset, command.pointer_offset + command.pointer_size
        if command.pointer_size not in POINTER_SIZES:
            raise _wrong(command, "pointer_size", f"{command.pointer_size} is none of 1, 2, 4, 8")
        if high > len(pointer):
            raise _wrong(command, "pointer_offset", f"{low:#x} is outside the file ({len(pointer)} bytes)")
        value = int.from_bytes(pointer[low:high], "little")
        if value >= len(pointee):
            raise _wrong(command, "pointer_offset", f"{value:#x} is outside the pointee ({len(pointee)} bytes)")
        value += self.where[_cut(command.pointee_file)]
        if value >> 8 * command.pointer_size:
            raise _wrong(command, "pointer_size", f"address {value:#x} does not fit {command.pointer_size} bytes")
        pointer[low:high] = value.to_bytes(command.pointer_size, "little")

    def _add_checksum(self, command: AddChecksum) -> None:
        data = self._file(command, "file", command.file)
        end = command.start + command.length
        if command.result_offset >= len(data):
            raise _wrong(
                command, "result_offset", f"{command.result_offset:#x} is outside the file ({len(data)} bytes)"
            )
        if end > len(data):
            raise _wrong(command, "start", f"{command.start:#x} to {end:#x} is outside the file ({len(data)} bytes)")
        if data[command.result_offset]:
            # here edk2 and SeaBIOS part: one sums the old byte, the other replaces it
            raise _wrong(command, "result_offset", f"the checksum byte holds {data[command.result_offset]:#x}, not 0")
        self.summed += command.length
        if self.summed > MAX_SUMMED:
            raise _wrong(command, "length", f"the checksums are over more than {MAX_SUMMED} bytes together")
        data[command.result_offset] = checksum(bytes(data[command.start : end]))

    def _write_pointer(self, command: WritePointer) -> None:
        name = self._name(command, "pointer_file", command.pointer_file)
        pointee = self._file(command, "pointee_file", command.pointee_file)
        if name not in self.files:
            raise _wrong(command, "pointer_file", f"fw_cfg has no file {name!r}")
        data = self.written.setdefault(name, bytearray(self.files[name]))
        low, high = command.pointer_offset, command.pointer_offset + command.pointer_size
        if command.pointer_size not in POINTER_SIZES:
            raise _wrong(command, "pointer_size", f"{command.pointer_size} is none of 1, 2, 4, 8")
        if high > len(data):
            raise _wrong(command, "pointer_offset", f"{low:#x} is outside the file ({len(data)} bytes)")
        if command.pointee_offset >= len(pointee):
            raise _wrong(
                command, "pointee_offset", f"{command.pointee_offset:#x} is outside the pointee ({len(pointee)} bytes)"
            )
        value = self.where[_cut(command.pointee_file)] + command.pointee_offset
        if value >> 8 * command.pointer_size:
            raise _wrong(command, "pointer_size", f"address {value:#x} does not fit {command.pointer_size} bytes")
        data[low:high] = value.to_bytes(command.pointer_size, "little")

    def _file(self, command: Command, field: str, name: str) -> bytearray:
        data = self.data.get(name)  # scripts name few files, thousands of times
        if data is None:
            data = self.data.get(self._name(command, field, name))
        if data is None:
            raise _wrong(command, field, f"{name!r} is not allocated")
        return data

    @staticmethod
    def _name(command: Command, field: str, name: str) -> str:
        if len(name) >= NAME_SIZE:
            raise _wrong(command, field, "no NUL ends the name")
        return _cut(name)


def _cut(name: str) -> str:
    """The name as firmware reads it: up to the first NUL."""
    return name.partition("\0")[0]


def _wrong(command: Command, field: str, reason: str) -> DecodeError:
    kind = type(command)
    return DecodeError(reason, structure=kind.__name__, path=field, offset=kind.at(field).offset)


def align_up(value: int, to: int) -> int:
    """The next multiple of ``to``."""
    return -(-value // to) * to
