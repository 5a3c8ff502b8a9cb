"""Hardware Error Source Table (ACPI 6.5, 18.3.2): the error sources, and how each tells the guest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import construct as c

from acpi.gas import GenericAddress
from acpi.table import TableHeader, open_table, seal
from cper.wire import U8, U16, U32, U64, DecodeError, OpenEnum, Struct, TruncatedError, WireError, u8, u16
from cper.wire._construct import Wire


class NotificationType(OpenEnum):
    """How the platform tells OSPM of an error (18.3.2.9)."""

    POLLED = 0
    EXTERNAL_INTERRUPT = 1
    LOCAL_INTERRUPT = 2
    SCI = 3
    NMI = 4
    CMCI = 5
    MCE = 6
    GPIO_SIGNAL = 7
    SEA = 8
    SEI = 9
    GSIV = 10
    SDEI = 11
    SSE = 12


class HardwareErrorNotification(Struct, size=28):
    """Hardware Error Notification (18.3.2.9)."""

    type: Annotated[NotificationType, u8]
    length: U8 = 28
    """Bytes of this structure."""
    configuration_write_enable: U16 = 0
    """Which of the fields below OSPM may change."""
    poll_interval_ms: U32 = 0
    """Milliseconds between polls; Linux disables a polled source with 0."""
    vector: U32 = 0
    """GSIV, or the SDEI event number."""
    polling_threshold_value: U32 = 0
    polling_threshold_window_ms: U32 = 0
    error_threshold_value: U32 = 0
    error_threshold_window_ms: U32 = 0


class GenericHardwareErrorSource(Struct, size=64):
    """Generic Hardware Error Source (18.3.2.7)."""

    TYPE: ClassVar[int] = 9
    type: Annotated[Literal[9], u16] = 9
    source_id: U16
    related_source_id: U16 = 0xFFFF
    """0xFFFF: there is none."""
    flags: U8 = 0
    enabled: U8 = 1
    records_to_preallocate: U32 = 1
    max_sections_per_record: U32 = 1
    max_raw_data_length: U32 = 0
    """Bytes."""
    error_status_address: GenericAddress
    """A 64-bit register that *holds* the guest physical address of the Generic Error Status Block."""
    notification: HardwareErrorNotification
    error_status_block_length: U32
    """Bytes kept for the block."""


class GenericHardwareErrorSourceV2(GenericHardwareErrorSource, size=92):
    """Generic Hardware Error Source version 2 (18.3.2.8): with a Read Ack Register."""

    TYPE: ClassVar[int] = 10
    type: Annotated[Literal[10], u16] = 10  # type: ignore[assignment]
    read_ack_register: GenericAddress
    """A 64-bit register: after reading the block OSPM writes ``value & preserve | write``."""
    read_ack_preserve: U64 = 0xFFFF_FFFF_FFFF_FFFE
    read_ack_write: U64 = 1


Source = GenericHardwareErrorSource | GenericHardwareErrorSourceV2

SOURCES: dict[int, type[Struct]] = {s.TYPE: s for s in (GenericHardwareErrorSource, GenericHardwareErrorSourceV2)}
"""Source type to structure.  The types have no length field: a reader must know every one that comes."""


class _AnySource(c.Construct):  # type: ignore[misc]
    """One error source, told apart by its type word."""

    def _parse(self, stream: Any, context: Any, path: str) -> Struct:
        at, name = stream.tell(), f"sources[{context._index}]"
        kind = stream.read(2)
        stream.seek(at)
        number = int.from_bytes(kind, "little")
        if len(kind) == 2 and number not in SOURCES:
            raise DecodeError(
                f"type {number} is unknown, and its length with it", structure="Hest", path=f"{name}.type", offset=at
            )
        try:
            return Wire(SOURCES.get(number, GenericHardwareErrorSource))._parse(stream, context, path)
        except WireError as error:
            raise error.within("Hest", name) from None

    def _build(self, obj: Struct, stream: Any, context: Any, path: str) -> Struct:
        stream.write(obj.encode())
        return obj


_TABLE = c.Struct(
    "header" / Wire(TableHeader),
    "count" / c.Int32ul,
    "sources" / c.Array(c.this.count, _AnySource()),
    "trailing" / c.GreedyBytes,
)


@dataclass(frozen=True)
class Hest:
    """The whole table: header (length and checksum are set when it is built) and sources in order."""

    sources: tuple[Source, ...]
    header: TableHeader = field(default_factory=lambda: TableHeader(signature="HEST", length=0, revision=1))
    trailing: bytes = b""
    """Bytes after the last source that the table's length covers: kept, never read."""

    def build(self) -> bytes:
        """The table's bytes, with length and checksum."""
        table = {"header": self.header, "count": len(self.sources), "sources": self.sources, "trailing": self.trailing}
        return seal(self.header, _TABLE.build(table)[TableHeader.SIZE :])

    @classmethod
    def parse(cls, data: bytes) -> Hest:
        """Read a table.  Raises DecodeError (signature, unknown source type), TruncatedError."""
        header, body = open_table(data, "HEST", structure="Hest")
        try:
            table = _TABLE.parse(data[: header.length])
        except c.StreamError:
            raise TruncatedError(
                f"4 bytes needed, {len(body)} given", structure="Hest", path="count", offset=header.SIZE
            ) from None
        return cls(tuple(table.sources), header, table.trailing)

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""
        out: dict[str, Any] = {"header": self.header.plain(), "sources": [s.plain() for s in self.sources]}
        return out | ({"trailing": self.trailing.hex()} if self.trailing else {})

    def offset(self, index: int) -> int:
        """Byte offset of source ``index`` from the start of the table."""
        return TableHeader.SIZE + 4 + sum(s.SIZE for s in self.sources[:index])

    def source(self, source_id: int) -> Source:
        """The source with this id.  Raises KeyError."""
        for s in self.sources:
            if s.source_id == source_id:
                return s
        raise KeyError(source_id)
