"""The linker/loader script of QEMU's guests (QEMU ``hw/acpi/bios-linker-loader.c``; edk2 ``QemuLoader.h``).

The script says how the files of fw_cfg become tables in guest memory: which to place, which integers in them are
pointers to another file, which bytes are checksums, and which addresses to tell the VMM.  ``execute`` in
``acpi.linking`` does what the guest's firmware does with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from cper.wire import U8, U32, Cell, DecodeError, EncodeError, OpenEnum, Struct, WireError, blob, text, u8, u32
from cper.wire import Reserved as Padding

COMMAND_SIZE = 128
NAME_SIZE = 56
"""Bytes of a file name, the NUL at its end included."""
MAX_COMMANDS = 1 << 16
"""A longer script is refused; a HEST of 10,000 sources takes 30,004."""
MAX_ALIGNMENT = 4096
"""edk2 places files on pages and refuses a wider alignment."""
POINTER_SIZES = (1, 2, 4, 8)

_NAME: Cell = text(NAME_SIZE)


class Zone(OpenEnum):
    """Where a file goes: anywhere below 4 GiB, or into the last page of a PC's first MiB.  edk2 heeds neither."""

    HIGH = 1
    FSEG = 2


class Allocate(Struct, size=COMMAND_SIZE):
    """ALLOCATE: load a file into guest memory.  It comes before every other command about the file."""

    COMMAND: ClassVar[int] = 1
    command: Annotated[Literal[1], u32] = 1
    file: Annotated[str, _NAME]
    alignment: U32 = 1
    """Bytes; a power of two."""
    zone: Annotated[Zone, u8] = Zone.HIGH
    padding: ClassVar[Cell] = Padding(63)


class AddPointer(Struct, size=COMMAND_SIZE):
    """ADD_POINTER: add the address of the pointee to the integer that the pointer file holds at the offset."""

    COMMAND: ClassVar[int] = 2
    command: Annotated[Literal[2], u32] = 2
    pointer_file: Annotated[str, _NAME]
    pointee_file: Annotated[str, _NAME]
    pointer_offset: U32
    """Bytes from the start of the pointer file."""
    pointer_size: U8 = 8
    """Bytes of the integer: 1, 2, 4 or 8."""
    padding: ClassVar[Cell] = Padding(7)


class AddChecksum(Struct, size=COMMAND_SIZE):
    """ADD_CHECKSUM: store the byte that makes the range sum up to 0; the byte holds 0 before."""

    COMMAND: ClassVar[int] = 3
    command: Annotated[Literal[3], u32] = 3
    file: Annotated[str, _NAME]
    result_offset: U32
    """Bytes from the start of the file to the checksum."""
    start: U32
    """Bytes from the start of the file to the range."""
    length: U32
    """Bytes of the range."""
    padding: ClassVar[Cell] = Padding(56)


class WritePointer(Struct, size=COMMAND_SIZE):
    """WRITE_POINTER: write an address in the pointee to a writable file of fw_cfg, where the VMM finds it."""

    COMMAND: ClassVar[int] = 4
    command: Annotated[Literal[4], u32] = 4
    pointer_file: Annotated[str, _NAME]
    pointee_file: Annotated[str, _NAME]
    pointer_offset: U32 = 0
    """Bytes from the start of the writable file."""
    pointee_offset: U32 = 0
    """Bytes from the start of the pointee."""
    pointer_size: U8 = 8
    """Bytes of the integer: 1, 2, 4 or 8."""
    padding: ClassVar[Cell] = Padding(3)


class OtherCommand(Struct, size=COMMAND_SIZE):
    """A command that no firmware knows: skipped, as firmware skips it."""

    command: U32
    payload: Annotated[bytes, blob(124)] = bytes(124)


Command = Allocate | AddPointer | AddChecksum | WritePointer | OtherCommand
COMMANDS: dict[int, type[Struct]] = {k.COMMAND: k for k in (Allocate, AddPointer, AddChecksum, WritePointer)}
"""Command number to structure."""


@dataclass(frozen=True)
class LoaderScript:
    """``etc/table-loader``: commands in order."""

    commands: tuple[Command, ...]

    def build(self) -> bytes:
        """The script's bytes."""
        return b"".join([command.encode() for command in self.commands])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a script.  Raises DecodeError where its length is no whole number of commands, or is too long."""
        count, rest = divmod(len(data), COMMAND_SIZE)
        if rest:
            raise DecodeError(
                f"{len(data)} bytes are no whole number of {COMMAND_SIZE}-byte commands", structure="LoaderScript",
                path=f"commands[{count}]", offset=count * COMMAND_SIZE,
            )  # fmt: skip
        if count > MAX_COMMANDS:
            raise DecodeError(
                f"{count} commands: more than {MAX_COMMANDS}", structure="LoaderScript", path="commands",
                offset=MAX_COMMANDS * COMMAND_SIZE,
            )  # fmt: skip
        commands: list[Any] = []
        at = 0
        try:
            for at in range(0, len(data), COMMAND_SIZE):
                kind = COMMANDS.get(int.from_bytes(data[at : at + 4], "little"), OtherCommand)
                commands.append(kind.decode(data, at))
        except WireError as error:
            raise error.within("LoaderScript", f"commands[{at // COMMAND_SIZE}]") from None
        return cls(tuple(commands))

    def plain(self) -> list[dict[str, Any]]:
        """What JSON holds of the script."""
        return [{"name": type(command).__name__, **command.plain()} for command in self.commands]


class ScriptBuilder:
    """Collects commands and keeps the rules that firmware holds them to.  Raises EncodeError, saying which command."""

    def __init__(self) -> None:
        self._allocations: list[bytes] = []
        self._commands: list[bytes] = []
        self._files: dict[str, int] = {}

    def allocate(self, file: str, size: int, alignment: int, zone: Zone = Zone.HIGH) -> None:
        """Place a file of ``size`` bytes."""
        name = f"allocate {file!r}"
        self._name(name, file)
        if file in self._files:
            raise self._wrong(name, "file", "it is allocated twice")
        if not 1 <= alignment <= MAX_ALIGNMENT or alignment & alignment - 1:
            raise self._wrong(name, "alignment", f"{alignment} is no power of two up to {MAX_ALIGNMENT}")
        self._files[file] = size
        self._allocations.append(Allocate.pack(command=1, file=file, alignment=alignment, zone=zone))

    def add_pointer(self, file: str, offset: int, pointee: str, size: int = 8) -> None:
        """The ``size`` bytes at ``offset`` of ``file`` are an address in ``pointee``."""
        name = f"add_pointer {file!r}"
        self._range(name, file, "pointer_offset", offset, size)
        self._range(name, pointee, "pointee_file", 0, 1)
        self._commands.append(
            AddPointer.pack(
                command=2, pointer_file=file, pointee_file=pointee, pointer_offset=offset, pointer_size=size
            )
        )

    def add_checksum(self, file: str, result: int, start: int, length: int) -> None:
        """The byte at ``result`` of ``file`` makes ``length`` bytes from ``start`` sum up to 0."""
        name = f"add_checksum {file!r}"
        self._range(name, file, "result_offset", result, 1)
        self._range(name, file, "start", start, length)
        self._commands.append(AddChecksum.pack(command=3, file=file, result_offset=result, start=start, length=length))

    def write_pointer(self, writable: str, pointee: str, offset: int = 0) -> None:
        """Tell the VMM, in the writable file of 8 bytes, where byte ``offset`` of ``pointee`` lies."""
        name = f"write_pointer {writable!r}"
        self._name(name, writable)
        self._range(name, pointee, "pointee_offset", offset, 1)
        self._commands.append(
            WritePointer.pack(
                command=4, pointer_file=writable, pointee_file=pointee, pointee_offset=offset, pointer_size=8
            )
        )

    def build(self) -> bytes:
        """The script's bytes, the allocations first.  Raises EncodeError where there are too many commands."""
        count = len(self._allocations) + len(self._commands)
        if count > MAX_COMMANDS:
            raise self._wrong("LoaderScript", "commands", f"{count} commands: more than {MAX_COMMANDS}")
        return b"".join([*self._allocations, *self._commands])

    def _range(self, name: str, file: str, field: str, offset: int, size: int) -> None:
        if file not in self._files:
            raise self._wrong(name, field, f"{file!r} is not allocated")
        if offset < 0 or offset + size > self._files[file]:
            raise self._wrong(
                name, field, f"{offset:#x} and {size} bytes is outside {file!r} ({self._files[file]} bytes)"
            )

    def _name(self, name: str, file: str) -> None:
        if not 0 < len(file.encode()) < NAME_SIZE:
            raise self._wrong(name, "file", f"the name has {len(file.encode())} bytes, not 1 to {NAME_SIZE - 1}")

    @staticmethod
    def _wrong(structure: str, path: str, reason: str) -> EncodeError:
        return EncodeError(reason, structure=structure, path=path)
