"""The frame of a stream: magic number, version, sections, and the description (QEMU ``migration/savevm.c``)."""

from __future__ import annotations

from typing import Any, NamedTuple

from vmm_ras.qemu_migration.cursor import Buffer, Cursor
from vmm_ras.qemu_migration.description import VM_DESCRIPTION, VM_EOF, VM_SUBSECTION, Device, Reader, find_description
from vmm_ras.qemu_migration.ram import GuestRam, RamReader, check_page_size, main_block

MAGIC = b"QEVM"
VERSION = 3
START, PART, END, FULL = 1, 2, 3, 4
CONFIGURATION, COMMAND, FOOTER = 7, 8, 0x7E
MAX_SECTIONS = 1 << 20
VIRT_RAM = 0x4000_0000
"""Guest physical address of RAM of QEMU's arm64 machine ``virt`` (``hw/arm/virt.c``, base_memmap)."""


class MigrationFile(NamedTuple):
    """What a file holds."""

    machine: str
    """With its version: ``virt-10.0``; empty where the stream does not say it (below 2.4)."""
    page_size: int
    features: frozenset[str]
    """Migration capabilities that change the format."""
    devices: tuple[Device, ...]
    ram: GuestRam
    pages: int
    """RAM pages, those that were sent again included."""
    data: Buffer

    def integers(self, device: Device, path: str) -> tuple[int, ...]:
        """The elements of a field, unsigned; none where the device has no such field, or it was not sent."""
        field = device.fields.get(path)
        if field is None or not field.size:
            return ()
        raw = self.data[field.offset : field.offset + field.size * field.elements]
        return tuple(int.from_bytes(raw[i : i + field.size], "big") for i in range(0, len(raw), field.size))

    def named(self, name: str) -> tuple[Device, ...]:
        """The devices of this name, whatever bus they are on."""
        return tuple(d for d in self.devices if d.name.rpartition("/")[2] == name)


def is_migration(data: Buffer) -> bool:
    """Whether it begins as a stream does."""
    return data[:4] == MAGIC


def read_migration(data: Buffer) -> MigrationFile:
    """Read a file.  Raises InputError: one line that names the byte, for anything that is not as QEMU writes it.

    Memory is bounded: of RAM nothing is kept, and the devices' state stays where it is.
    """
    cursor = Cursor(data)
    if cursor.take(4, "QEMU's magic number") != MAGIC:
        cursor.at = 0
        raise cursor.wrong("QEMU's magic number 'QEVM' expected")
    version = cursor.number(4, "the stream's version")
    if version != VERSION:
        cursor.at -= 4
        raise cursor.wrong(f"stream version {version}, expected {VERSION}")
    end, said = find_description(data)
    return _Walk(cursor, end, said).run()


class _Walk:
    """Goes over the sections, one after the other."""

    def __init__(self, cursor: Cursor, end: int, said: dict[str, Any]) -> None:
        self.cursor, self.end, self.said = cursor, end, said
        self.page_size = check_page_size(said.get("page_size", 4096), end)
        self.devices: list[Device] = []
        self.described = iter(said["devices"])
        self.sections: dict[int, str] = {}
        self.chunks: list[int] = []
        self.machine, self.features = "", frozenset[str]()
        self.ram = RamReader(self.page_size)
        self.pages = self.count = 0

    def run(self) -> MigrationFile:
        cursor = self.cursor
        while (kind := cursor.number(1, "a section")) != VM_EOF:
            self.count += 1
            if self.count > MAX_SECTIONS:
                raise cursor.wrong(f"more than {MAX_SECTIONS} sections")
            if kind == CONFIGURATION:
                self.configuration()
            elif kind == COMMAND:
                cursor.skip(2, "a command")
                cursor.skip(cursor.number(2, "a command's length"), "a command")
            elif kind in (START, FULL, PART, END):
                self.section(kind)
            else:
                cursor.at -= 1
                raise cursor.wrong(f"section type {kind:#x}: not known")
        if cursor.at != self.end or self.cursor.data[cursor.at] != VM_DESCRIPTION:
            raise cursor.wrong("the stream ends, but its description is elsewhere")
        block = main_block(self.ram.blocks) if self.machine.startswith("virt") else ""
        ram = GuestRam(cursor.data, self.ram, self.chunks, VIRT_RAM, block)
        return MigrationFile(
            self.machine, self.page_size, self.features, tuple(self.devices), ram, self.pages, cursor.data
        )

    def configuration(self) -> None:
        """The machine's type, and what the other side must agree with."""
        cursor = self.cursor
        self.machine = cursor.text(cursor.number(4, "the machine's name"), "the machine's name")
        while cursor.at < cursor.size and cursor.data[cursor.at] == VM_SUBSECTION:
            cursor.skip(1, "a subsection")
            name = cursor.string("a subsection's name")
            cursor.skip(4, f"{name}: version")
            if name == "configuration/target-page-bits":
                cursor.skip(4, name)
            elif name == "configuration/uuid":
                cursor.skip(16, name)
            elif name == "configuration/capabilities":
                listed = [cursor.string(name) for _ in range(min(cursor.number(4, name), 256))]
                self.features = frozenset(listed)
                self.ram.features = self.features
            else:
                raise cursor.wrong(f"subsection {name!r}: not known")

    def section(self, kind: int) -> None:
        cursor = self.cursor
        number = cursor.number(4, "a section's number")
        instance = version = 0
        if kind in (START, FULL):
            name = cursor.string("a section's name")
            instance, version = cursor.number(4, f"{name}: instance"), cursor.number(4, f"{name}: version")
            self.sections[number] = name
        elif number not in self.sections:
            raise cursor.wrong(f"section {number} goes on, but has not begun")
        name = self.sections[number]
        if kind == FULL:
            self.devices.append(self.device(name, instance, version))
        elif name == "ram":
            self.chunks.append(cursor.at)
            self.pages += self.ram.chunk(cursor)
        else:
            raise cursor.wrong(f"section {name!r} has parts of a format that is not known: what follows cannot be read")
        if cursor.at < cursor.size and cursor.data[cursor.at] == FOOTER:  # machines from 2.4 on
            cursor.skip(1, "a footer")
            found = cursor.number(4, "a footer")
            if found != number:
                raise cursor.wrong(f"{name}: the footer is of section {found}, expected {number}")
        elif kind == FULL:
            raise cursor.wrong(f"{name}: its footer expected: the description does not fit the state")

    def device(self, name: str, instance: int, version: int) -> Device:
        said = next(self.described, None)
        if not isinstance(said, dict) or (said.get("name"), said.get("instance_id")) != (name, instance):
            raise self.cursor.wrong(f"device {name!r}, instance {instance}: the description has another one here")
        return Reader(self.cursor).device(said, name, instance, version)
