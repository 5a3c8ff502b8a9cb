"""Tables, registers and status blocks placed in guest memory, and found there (ACPI 6.5, 5.2.5, 18.3.2.7 and 18.3.2.8).

The error region is laid out as QEMU's ``etc/hardware_errors``: one address register per source, one Read Ack Register
per source, then the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from acpi.gas import AddressSpace, GenericAddress
from acpi.hest import (
    GenericHardwareErrorSource,
    GenericHardwareErrorSourceV2,
    HardwareErrorNotification,
    Hest,
    NotificationType,
    Source,
)
from acpi.table import MAX_TABLE_SIZE, Rsdp, TableHeader, Xsdt, checksum
from cper.wire import DecodeError, WireError

ALL_ONES = (1 << 64) - 1
Read = Callable[[int, int], bytes]
"""``read(guest physical address, bytes)``."""


@dataclass(frozen=True)
class SourceDescription:
    """One error source as its author thinks of it; addresses come with the placing."""

    source_id: int
    notification: NotificationType
    vector: int = 0
    """GSIV, or the SDEI event number."""
    poll_interval_ms: int = 0
    """Milliseconds, for polled sources."""
    block_length: int = 4096
    """Bytes kept for the status block."""
    max_sections: int = 1
    """Most entries in one block."""
    max_raw_data_length: int = 0
    """Bytes; what the table says (QEMU: 1 KiB)."""
    version: int = 2
    """2: GHESv2, with a Read Ack Register; 1: GHES."""
    read_ack_preserve: int = ALL_ONES ^ 1
    read_ack_write: int = 1


@dataclass(frozen=True)
class TableWords:
    """The OEM's words in the table headers."""

    oem_id: str = "VMMRAS"
    oem_table_id: str = "VMMRAS  "
    oem_revision: int = 1
    creator_id: str = "VRAS"
    creator_revision: int = 1

    def header(self, signature: str, revision: int) -> TableHeader:
        """A table header with these words; length and checksum are set when the table is sealed."""
        return TableHeader(
            signature=signature, length=0, revision=revision, oem_id=self.oem_id, oem_table_id=self.oem_table_id,
            oem_revision=self.oem_revision, creator_id=self.creator_id, creator_revision=self.creator_revision,
        )  # fmt: skip


class PlacedSource(NamedTuple):
    """One GHES or GHESv2 source with every address that posting to it, or reading it, needs.

    Addresses are guest physical; ``ack`` is None for GHES version 1, whose only gate is the block status.
    """

    source_id: int
    notification: NotificationType
    vector: int
    poll_interval_ms: int
    register: int
    """64-bit register that holds the block's address."""
    block: int
    block_length: int
    max_sections: int
    ack: int | None
    ack_preserve: int
    ack_write: int


@dataclass(frozen=True)
class Image:
    """What lies where: the regions to write into guest memory at boot, and the sources they describe."""

    regions: tuple[tuple[str, int, bytes], ...]
    """(name, guest physical address, bytes)."""
    rsdp: int
    sources: tuple[PlacedSource, ...]
    hest: Hest = field(repr=False)

    def write(self, write: Callable[[int, bytes], Any]) -> None:
        """Put every region into guest memory with ``write(gpa, data)``."""
        for _, gpa, data in self.regions:
            write(gpa, data)

    def region(self, name: str) -> tuple[int, bytes]:
        """(address, bytes) of a region: ``rsdp``, ``xsdt``, ``hest`` or ``hardware_errors``.  Raises KeyError."""
        for found, gpa, data in self.regions:
            if found == name:
                return gpa, data
        raise KeyError(name)


def error_region_size(sources: Sequence[SourceDescription]) -> int:
    """Bytes of the error region: two 8-byte registers and a block per source."""
    return sum(16 + s.block_length for s in sources)


def place_sources(sources: Sequence[SourceDescription], errors: int) -> tuple[PlacedSource, ...]:
    """The sources with their error region at guest physical address ``errors``.  Raises ValueError."""
    if len({s.source_id for s in sources}) != len(sources):
        raise ValueError("two sources have one source id (18.3.2: it identifies the source)")
    block, placed = errors + 16 * len(sources), []
    for index, s in enumerate(sources):
        if not 20 <= s.block_length <= 65536:
            raise ValueError(f"source {s.source_id}: block length {s.block_length} is not between 20 and 65536")
        placed.append(
            PlacedSource(
                s.source_id, s.notification, s.vector, s.poll_interval_ms, errors + 8 * index, block, s.block_length,
                s.max_sections, errors + 8 * (len(sources) + index) if s.version == 2 else None,
                s.read_ack_preserve, s.read_ack_write,
            )
        )  # fmt: skip
        block += s.block_length
    return tuple(placed)


def build_hest(
    sources: Sequence[SourceDescription], errors: int, words: TableWords | None = None, revision: int = 2
) -> Hest:
    """The table for these sources with their error region at ``errors``."""
    found: list[Source] = []
    models: dict[tuple[Any, ...], tuple[type[GenericHardwareErrorSource], bytes]] = {}
    for s, at in zip(sources, place_sources(sources, errors), strict=True):
        shape = (
            s.notification, s.poll_interval_ms, s.block_length, s.max_sections, s.max_raw_data_length, s.version,
            s.read_ack_preserve, s.read_ack_write,
        )  # fmt: skip
        model = models.get(shape)
        source = _source(s, at) if model is None else _alike(*model, s, at)
        if model is None:
            models[shape] = type(source), source.encode()
        found.append(source)
    return Hest(tuple(found), (words or TableWords()).header("HEST", revision))


def _source(s: SourceDescription, at: PlacedSource) -> GenericHardwareErrorSource:
    """Raises pydantic.ValidationError for what no field can hold."""
    common: dict[str, Any] = {
        "source_id": s.source_id,
        "max_sections_per_record": s.max_sections,
        "max_raw_data_length": s.max_raw_data_length,
        "error_status_address": GenericAddress(address=at.register),
        "notification": HardwareErrorNotification(
            type=s.notification, vector=s.vector, poll_interval_ms=s.poll_interval_ms
        ),
        "error_status_block_length": s.block_length,
    }
    if at.ack is None:
        return GenericHardwareErrorSource(**common)
    return GenericHardwareErrorSourceV2(
        **common, read_ack_register=GenericAddress(address=at.ack), read_ack_preserve=s.read_ack_preserve,
        read_ack_write=s.read_ack_write,
    )  # fmt: skip


def _alike(
    kind: type[GenericHardwareErrorSource], raw: bytes, s: SourceDescription, at: PlacedSource
) -> GenericHardwareErrorSource:
    """``_source`` from the bytes of one that differs in id, vector and addresses only: half the time."""
    out = bytearray(raw)
    try:
        for field, value in zip(_OWN, (s.source_id, s.vector, at.register, at.ack), strict=True):
            if value is not None:
                out[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    except (AttributeError, OverflowError):
        return _source(s, at)
    return kind.decode(out)


_OWN = tuple(
    GenericHardwareErrorSourceV2.at(path)
    for path in ("source_id", "notification.vector", "error_status_address.address", "read_ack_register.address")
)
"""What every source has for itself."""


def place(
    sources: Sequence[SourceDescription], tables: int, errors: int | None = None,
    words: TableWords | None = None, revision: int = 2,
) -> Image:  # fmt: skip
    """RSDP, XSDT and HEST from guest physical address ``tables`` on, the error region at ``errors`` or behind them.

    Every source's gate is open at first: its address register holds the block's address, the bits of its ack write mask
    are set, and its block is zero.  Raises ValueError where these overlap, or do not lie within 64 bits.
    """
    words = words or TableWords()
    length = Hest.offset(build_hest(sources, 0, words, revision), len(sources))
    rsdp = tables
    xsdt_at = _up(rsdp + Rsdp.SIZE, 64)
    hest_at = _up(xsdt_at + TableHeader.SIZE + 8, 64)
    if errors is None:
        errors = _up(hest_at + length, 4096)
    end = errors + sum(16 + s.block_length for s in sources)
    if not 0 <= rsdp <= hest_at + length <= 1 << 64 or not 0 <= errors <= end <= 1 << 64:
        raise ValueError(f"tables at {rsdp:#x}, error region at {errors:#x}: not within 64 bits")
    if errors < hest_at + length and end > rsdp:
        raise ValueError(f"the error region, {errors:#x}-{end - 1:#x}, overlaps the tables at {rsdp:#x}")
    hest = build_hest(sources, errors, words, revision)
    placed = place_sources(sources, errors)
    regions = (
        ("rsdp", rsdp, Rsdp(oem_id=words.oem_id, xsdt_address=xsdt_at).sealed().encode()),
        ("xsdt", xsdt_at, Xsdt.build([hest_at], words.header("XSDT", 1))),
        ("hest", hest_at, hest.build()),
        ("hardware_errors", errors, error_region(placed)),
    )
    return Image(regions, rsdp, placed, hest)


def error_region(placed: Sequence[PlacedSource]) -> bytes:
    """The error region as the guest finds it at boot."""
    registers = b"".join(s.block.to_bytes(8, "little") for s in placed)
    acks = b"".join((s.ack_write if s.ack is not None else 0).to_bytes(8, "little") for s in placed)
    return registers + acks + bytes(sum(s.block_length for s in placed))


def find_tables(read: Read, rsdp: int) -> dict[str, tuple[int, bytes]]:
    """Walk RSDP and XSDT in guest memory: signature to (address, bytes) of each table; the first of a signature counts.

    All tables together may have MAX_TABLE_SIZE bytes: an address in the XSDT costs 8 bytes, its table any number.
    Raises DecodeError, TruncatedError, and whatever ``read`` raises.
    """
    raw = read(rsdp, Rsdp.SIZE)
    pointer = Rsdp.decode(raw)
    if checksum(raw[:20]) or checksum(raw):
        raise DecodeError("the checksum is wrong", structure="Rsdp", path="checksum", offset=8)
    xsdt = _table(read, pointer.xsdt_address, MAX_TABLE_SIZE)
    left = MAX_TABLE_SIZE - len(xsdt)
    found: dict[str, tuple[int, bytes]] = {}
    for gpa in Xsdt.parse(xsdt)[1]:
        table = _table(read, gpa, left)
        left -= len(table)
        found.setdefault(table[:4].decode("latin-1"), (gpa, table))
    return found


def find_sources(read: Read, hest: bytes) -> tuple[PlacedSource, ...]:
    """The GHES and GHESv2 sources of a HEST, their block addresses read through the address registers.

    Sources that are disabled, that only assist a machine check, or whose registers are not in system memory, are left
    out, as Linux leaves them out.
    """
    placed, table = [], Hest.parse(hest)
    for s in table.generic_sources:
        ack = s.read_ack_register if isinstance(s, GenericHardwareErrorSourceV2) else None
        spaces = {s.error_status_address.address_space} | ({ack.address_space} if ack else set())
        assists = s.related_source_id in table.assisted_ids
        if not s.enabled or assists or spaces != {AddressSpace.SYSTEM_MEMORY}:
            continue
        register = s.error_status_address.address
        placed.append(
            PlacedSource(
                s.source_id, s.notification.type, s.notification.vector, s.notification.poll_interval_ms, register,
                int.from_bytes(read(register, 8), "little"), min(s.error_status_block_length, 65536),
                s.max_sections_per_record, ack.address if ack else None,
                s.read_ack_preserve if isinstance(s, GenericHardwareErrorSourceV2) else 0,
                s.read_ack_write if isinstance(s, GenericHardwareErrorSourceV2) else 0,
            )
        )  # fmt: skip
    return tuple(placed)


def _table(read: Read, gpa: int, left: int) -> bytes:
    try:
        header = TableHeader.decode(read(gpa, TableHeader.SIZE))
    except WireError as error:
        raise error.within(f"Table@{gpa:#x}", "header") from None
    if not TableHeader.SIZE <= header.length <= MAX_TABLE_SIZE:
        raise DecodeError(
            f"{header.length} bytes is not between {TableHeader.SIZE} and {MAX_TABLE_SIZE}",
            structure=f"Table@{gpa:#x}", path="header.length", offset=4,
        )  # fmt: skip
    if header.length > left:
        raise DecodeError(
            f"{header.length} bytes: the tables together have more than {MAX_TABLE_SIZE}",
            structure=f"Table@{gpa:#x}", path="header.length", offset=4,
        )  # fmt: skip
    data = read(gpa, header.length)
    if checksum(data):
        raise DecodeError("the checksum is wrong", structure=f"Table@{gpa:#x}", path="header.checksum", offset=9)
    return data


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


__all__ = [
    "Image", "PlacedSource", "SourceDescription", "TableWords", "build_hest", "error_region", "error_region_size",
    "find_sources", "find_tables", "place", "place_sources",
]  # fmt: skip
