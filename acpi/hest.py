"""Hardware Error Source Table (ACPI 6.5, 18.3.2): the error sources, and how each tells the guest.

The list is framed twice: in ``acpi.hest_frame`` with construct, and by the hand-written loop here, which reads 10,000
sources in a tenth of a second.  Both run the same vectors and the same hostile inputs and report the same offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

from acpi.error_source import (
    GenericHardwareErrorSource,
    GenericHardwareErrorSourceV2,
    NmiSource,
    PcieBridgeAer,
    PcieDeviceAer,
    PcieRootPortAer,
    SourceFlags,
)
from acpi.frame import TableHead, new_header
from acpi.machine_check import HEADERS, MachineCheckSource
from acpi.notification import HardwareErrorNotification, NotificationType
from acpi.table import TableHeader, open_table, seal
from cper.plain import hex_in, number_in, object_in, objects_in
from cper.wire import U32, DecodeError, Struct, TruncatedError, WireError

FIRST_WITH_LENGTH = 12
"""From this type on, in revision 2, a structure begins with type and length (18.3.2.11)."""


class HestHeader(TableHead, size=40):
    """Fixed part of the table (18.3.2)."""

    error_source_count: U32
    """Structures that follow."""


class OpaqueSource(NamedTuple):
    """A structure of a type that is not defined yet: it begins with type and length (18.3.2.11) and is kept whole."""

    data: bytes

    @property
    def type(self) -> int:
        """Source type, 12 or more."""
        return int.from_bytes(self.data[:2], "little")

    @property
    def source_id(self) -> None:
        """Unknown: no such type says where its id lies."""

    @property
    def SIZE(self) -> int:
        """Bytes on the wire."""
        return len(self.data)

    @classmethod
    def decode(cls, data: bytes, offset: int = 0) -> Self:
        """Read the structure at ``offset``.  Raises TruncatedError, DecodeError."""
        if offset + 4 > len(data):
            raise TruncatedError(
                f"4 bytes needed, {len(data) - offset} given", structure=cls.__name__, path="length", offset=offset + 2
            )
        length = int.from_bytes(data[offset + 2 : offset + 4], "little")
        if length < 4:
            raise DecodeError(
                f"{length} bytes cannot hold the type and the length", structure=cls.__name__, path="length",
                offset=offset + 2,
            )  # fmt: skip
        if offset + length > len(data):
            raise TruncatedError(
                f"{length} bytes needed, {len(data) - offset} given", structure=cls.__name__, path="length",
                offset=offset + 2,
            )  # fmt: skip
        return cls(bytes(data[offset : offset + length]))

    def encode(self) -> bytes:
        """The structure's bytes."""
        return self.data

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the structure."""
        return {"type": self.type, "data": self.data.hex()}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The structure that :meth:`plain` described.  Raises ValueError."""
        data = hex_in(plain, "data")
        if cls.decode(data).data != data:
            raise ValueError(f"'data': {len(data)} bytes given, its length says otherwise")
        return cls(data)


FixedSource = (
    NmiSource
    | PcieRootPortAer
    | PcieDeviceAer
    | PcieBridgeAer
    | GenericHardwareErrorSource
    | GenericHardwareErrorSourceV2
)
Source = FixedSource | MachineCheckSource | OpaqueSource

FIXED: dict[int, type[FixedSource]] = {
    kind.TYPE: kind
    for kind in (
        NmiSource, PcieRootPortAer, PcieDeviceAer, PcieBridgeAer, GenericHardwareErrorSource,
        GenericHardwareErrorSourceV2,
    )
}  # fmt: skip
"""Source type to structure, where the size is fixed.  Types below 12 have no length field: a reader must know each."""

SOURCES: dict[int, type[Struct]] = {**FIXED, **HEADERS}
"""Source type to structure; the machine checks' without their banks."""


def source_reader(number: int, revision: int) -> Any:
    """The class that reads a source of this type in a table of this revision, or None where its length is unknown."""
    if number in FIXED:
        return FIXED[number]
    if number in HEADERS:
        return MachineCheckSource
    return OpaqueSource if revision >= 2 and number >= FIRST_WITH_LENGTH else None


@dataclass(frozen=True)
class Hest:
    """The whole table: header (length and checksum are set when it is built) and sources in order."""

    sources: tuple[Source, ...]
    header: TableHeader = field(default_factory=lambda: new_header("HEST", 1))
    trailing: bytes = b""
    """Bytes after the last source that the table's length covers: kept, never read."""
    count: int | None = None
    """Error Source Count as it was read, where that is not the number of ``sources``."""

    def build(self) -> bytes:
        """The table's bytes, with length, count and checksum."""
        return seal(self.header, self._body(len(self.sources)))

    def encode(self) -> bytes:
        """The table's bytes with length, count and checksum as they are."""
        return self.header.encode() + self._body(len(self.sources) if self.count is None else self.count)

    def _body(self, count: int) -> bytes:
        return b"".join([count.to_bytes(4, "little"), *(s.encode() for s in self.sources), self.trailing])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a table.  Raises DecodeError (signature, unknown source type), TruncatedError."""
        table, error = cls.examine(data)
        if error is not None:
            raise error
        return table

    @classmethod
    def examine(cls, data: bytes) -> tuple[Self, WireError | None]:
        """Read the sources before the first that cannot be read, and say why it cannot; None where all can.

        The bytes from that source on are in ``trailing``.  Raises DecodeError, TruncatedError only where the header or
        the count itself cannot be read.
        """
        header, _ = open_table(data, "HEST", structure="Hest")
        data = bytes(data[: header.length])
        count, at = _count(data), HestHeader.SIZE
        sources: list[Source] = []
        try:
            for index in range(count):
                source = _read(data, at, index, header.revision)
                sources.append(source)
                at += source.SIZE
        except WireError as error:
            return cls(tuple(sources), header, data[at:], count), error
        return cls(tuple(sources), header, data[at:]), None

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""
        out: dict[str, Any] = {"header": self.header.plain(), "sources": [s.plain() for s in self.sources]}
        out |= {"trailing": self.trailing.hex()} if self.trailing else {}
        return out | ({"count": self.count} if self.count is not None else {})

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        header = TableHeader.of_plain(object_in(plain, "header"))
        count = number_in(plain, "count") if plain.get("count") is not None else None
        sources: list[Source] = []
        for index, item in enumerate(objects_in(plain, "sources")):
            kind = source_reader(number_in(item, "type"), 2)
            if kind is None:
                raise ValueError(f"sources[{index}].type: {item.get('type')!r} is unknown")
            try:
                sources.append(kind.of_plain(item))
            except ValueError as error:
                error.add_note(f"sources[{index}]")
                raise
        return cls(tuple(sources), header, hex_in(plain, "trailing"), count)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each source from the start of the table, and of the end of the last."""
        found = [HestHeader.SIZE]
        for s in self.sources:
            found.append(found[-1] + s.SIZE)
        return tuple(found)

    def offset(self, index: int) -> int:
        """Byte offset of source ``index`` from the start of the table."""
        return self.offsets[index]

    @cached_property
    def by_id(self) -> dict[int, Source]:
        """Source id to source; the first of an id counts."""
        found: dict[int, Source] = {}
        for s in self.sources:
            if s.source_id is not None:
                found.setdefault(s.source_id, s)
        return found

    def source(self, source_id: int) -> Source:
        """The source with this id.  Raises KeyError."""
        return self.by_id[source_id]

    @property
    def generic_sources(self) -> tuple[GenericHardwareErrorSource, ...]:
        """The GHES and GHESv2 sources, in order."""
        return tuple(s for s in self.sources if isinstance(s, GenericHardwareErrorSource))

    @cached_property
    def assisted_ids(self) -> frozenset[int]:
        """Ids of the machine-check sources with GHES_ASSIST; a generic source related to one is for it alone."""
        checks = [s.header for s in self.sources if isinstance(s, MachineCheckSource)]
        return frozenset(h.source_id for h in checks if h.flags & SourceFlags.GHES_ASSIST)


def _count(data: bytes) -> int:
    try:
        return HestHeader.decode(data).error_source_count
    except WireError as error:
        at = HestHeader.at("error_source_count").offset
        raise type(error)(
            f"4 bytes needed, {len(data) - at} given", structure="Hest", path="count", offset=at
        ) from None


def _read(data: bytes, at: int, index: int, revision: int) -> Source:
    """The source at ``at``.  Raises TruncatedError, DecodeError."""
    number = int.from_bytes(data[at : at + 2], "little")
    kind = FIXED.get(number) or source_reader(number, revision)
    try:
        if at + 2 > len(data):
            raise TruncatedError(f"2 bytes needed, {len(data) - at} given", structure="Hest", path="type", offset=at)
        if kind is None:
            reason = f"type {number} is unknown, and its length with it"
            raise DecodeError(reason, structure="Hest", path="type", offset=at)
        source: Source = kind.decode(data, at)
    except WireError as error:
        raise error.within("Hest", f"sources[{index}]") from None
    return source


__all__ = [
    "FIXED", "SOURCES", "FixedSource", "GenericHardwareErrorSource", "GenericHardwareErrorSourceV2",
    "HardwareErrorNotification", "Hest", "HestHeader", "NotificationType", "OpaqueSource", "Source", "SourceFlags",
    "source_reader",
]  # fmt: skip
