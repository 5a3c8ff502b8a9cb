"""Tables and pending errors in a raw image of guest memory, found as the guest's operating system finds them."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from acpi.ghes import MAX_BLOCK_SIZE, StatusBlock
from acpi.image import PlacedSource, find_sources, find_tables
from acpi.table import Rsdp, checksum
from cper.wire import WireError
from cper.words import counted
from vmm_ras.errors import GuestError, InputError

if TYPE_CHECKING:
    from rich.console import Console


SIGNATURE = b"RSD PTR "


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data, lseek(2): start and end; the whole file where its file system cannot tell."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                yield end, size
            return
        yield start, end


class MemoryImage:
    """A file that holds guest memory from guest physical address ``base`` on.  Raises InputError, GuestError."""

    def __init__(self, file: Path, base: int) -> None:
        self.base = base
        try:
            with file.open("rb") as stream:
                self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                self._fd = os.dup(stream.fileno())
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: {getattr(error, 'strerror', None) or 'empty'}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.data.close()
        os.close(self._fd)

    def read(self, gpa: int, size: int) -> bytes:
        """``size`` bytes at ``gpa``.  Raises GuestError."""
        at = gpa - self.base
        if at < 0 or at + size > len(self.data):
            bounds = f"outside the image, which begins at {self.base:#x} (--base)"
            raise GuestError(f"{counted(size, 'byte')} at {gpa:#x}: {bounds}")
        return self.data[at : at + size]

    def find_rsdp(self) -> int:
        """The first RSDP with right checksums, on a 16-byte boundary (5.2.5.1).  Raises GuestError."""
        for start, end in extents(self._fd, len(self.data)):
            at = self.data.find(SIGNATURE, start, end)
            while at >= 0:
                raw = self.data[at : at + Rsdp.SIZE]
                aligned = (self.base + at) % 16 == 0
                if aligned and len(raw) == Rsdp.SIZE and not checksum(raw[:20]) and not checksum(raw):
                    return self.base + at
                at = self.data.find(SIGNATURE, at + 1, end)
        raise GuestError("no RSDP in the image")


class FoundSource(NamedTuple):
    """A source and the state that its memory shows."""

    source: PlacedSource
    gate: int | None
    """Read Ack Register; None where there is none, or it cannot be read."""
    block: StatusBlock | None
    """What is pending."""
    state: str
    """``empty``, ``pending``, ``malformed: ...`` or ``unreadable: ...``."""


class Found(NamedTuple):
    """What an image holds."""

    rsdp: int
    tables: dict[str, tuple[int, bytes]]
    sources: tuple[FoundSource, ...]

    def plain(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return {
            "rsdp": self.rsdp,
            "tables": [{"signature": s, "gpa": gpa, "size": len(data)} for s, (gpa, data) in self.tables.items()],
            "sources": [
                s.source._asdict()
                | {
                    "notification": s.source.notification.plain,
                    "gate": s.gate,
                    "armed": None if s.gate is None else bool(s.gate & s.source.ack_write),
                    "state": s.state,
                    "pending": None if s.block is None else s.block.plain(),
                }
                for s in self.sources
            ],
        }


def find(memory: MemoryImage, rsdp: int | None = None) -> Found:
    """Walk the tables, then look into each source.  Raises GuestError, DecodeError, TruncatedError."""
    at = memory.find_rsdp() if rsdp is None else rsdp
    tables = find_tables(memory.read, at)
    sources: tuple[PlacedSource, ...] = ()
    if "HEST" in tables:
        sources = find_sources(memory.read, tables["HEST"][1])
    return Found(at, tables, tuple(_look(memory, s) for s in sources))


def _look(memory: MemoryImage, source: PlacedSource) -> FoundSource:
    gate = None
    try:
        if source.ack is not None:
            gate = int.from_bytes(memory.read(source.ack, 8), "little")
        if not source.block or memory.read(source.block, 4) == bytes(4):
            return FoundSource(source, gate, None, "empty")
        raw = memory.read(source.block, min(source.block_length, MAX_BLOCK_SIZE))
    except GuestError as error:
        return FoundSource(source, gate, None, f"unreadable: {error}")
    try:
        return FoundSource(source, gate, StatusBlock.decode(raw), "pending")
    except WireError as error:
        return FoundSource(source, gate, None, f"malformed: {error}")


def render(console: Console, found: Found) -> None:
    """Print what was found."""
    from rich.table import Table

    from vmm_ras.cli import show

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("Table", "Address", "Bytes"):
        table.add_column(head, justify="left" if head == "Table" else "right")
    table.add_row("RSDP", f"{found.rsdp:#x}", str(Rsdp.SIZE))
    for signature, (gpa, data) in found.tables.items():
        table.add_row(signature, f"{gpa:#x}", str(len(data)))
    console.print(table)
    console.print()
    for s in found.sources:
        gate = "no ack register" if s.gate is None else "armed" if s.gate & s.source.ack_write else "awaiting the ack"
        console.print(
            f"source {s.source.source_id}, {s.source.notification.plain}, block {s.source.block:#x}: {s.state}, {gate}",
            style="bold" if s.block is not None else "",
        )
        if s.block is not None:
            show.render(console, s.block.encode(), show.block_fields(s.block))
