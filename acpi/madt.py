"""Multiple APIC Description Table, signature ``APIC`` (ACPI 6.5, 5.2.12), of an Arm machine with a GIC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import construct as c

from acpi.table import TableHeader, open_table, seal
from cper.plain import hex_in, number_in, object_in, objects_in
from cper.wire import U8, U16, U32, U64, Bits, DecodeError, Reserved, Struct, TruncatedError, WireError, Word, u8
from cper.wire._construct import Wire

MAX_CONTROLLERS = 1 << 16
"""More structures than a table of 16 MiB is allowed to have."""


class GicCpuInterface(Struct, size=80):
    """GIC CPU Interface, one per vCPU (5.2.12.14)."""

    TYPE: ClassVar[int] = 11
    type: Annotated[Literal[11], u8] = 11
    length: Annotated[Literal[80], u8] = 80
    reserved: ClassVar[Word] = Reserved(2)
    cpu_interface_number: U32
    """The CPU's number in a GICv2."""
    acpi_processor_uid: U32
    """_UID of the processor device in the DSDT."""
    flags: ClassVar[Word] = Word("I")
    enabled: Annotated[bool, Bits("flags", 0, 1)] = True
    performance_interrupt_edge: Annotated[bool, Bits("flags", 1, 2)] = False
    maintenance_interrupt_edge: Annotated[bool, Bits("flags", 2, 3)] = False
    online_capable: Annotated[bool, Bits("flags", 3, 4)] = False
    parking_protocol_version: U32 = 0
    performance_interrupt_gsiv: U32 = 0
    """The PMU's interrupt; 0: there is none."""
    parked_address: U64 = 0
    physical_base_address: U64 = 0
    """GICC registers of a GICv2; 0 with a GICv3."""
    gicv: U64 = 0
    gich: U64 = 0
    vgic_maintenance_interrupt: U32 = 0
    gicr_base_address: U64 = 0
    """This CPU's redistributor; 0 where a GicRedistributor structure covers it."""
    mpidr: U64
    """Affinity fields of MPIDR_EL1."""
    processor_power_efficiency_class: U8 = 0
    reserved_2: ClassVar[Word] = Reserved(1)
    spe_overflow_interrupt: U16 = 0


class GicDistributor(Struct, size=24):
    """GIC Distributor (5.2.12.15)."""

    TYPE: ClassVar[int] = 12
    type: Annotated[Literal[12], u8] = 12
    length: Annotated[Literal[24], u8] = 24
    reserved: ClassVar[Word] = Reserved(2)
    gic_id: U32 = 0
    physical_base_address: U64
    system_vector_base: U32 = 0
    gic_version: U8 = 0
    """0: the hardware says; 2, 3, 4: the GIC architecture."""
    reserved_2: ClassVar[Word] = Reserved(3)


class GicMsiFrame(Struct, size=24):
    """GICv2m MSI frame (5.2.12.16)."""

    TYPE: ClassVar[int] = 13
    type: Annotated[Literal[13], u8] = 13
    length: Annotated[Literal[24], u8] = 24
    reserved: ClassVar[Word] = Reserved(2)
    gic_msi_frame_id: U32 = 0
    physical_base_address: U64
    flags: ClassVar[Word] = Word("I")
    spi_select: Annotated[bool, Bits("flags", 0, 1)] = False
    """Count and base below hold; else the frame's own MSI_TYPER does."""
    spi_count: U16 = 0
    spi_base: U16 = 0


class GicRedistributor(Struct, size=16):
    """GIC Redistributor range (5.2.12.17)."""

    TYPE: ClassVar[int] = 14
    type: Annotated[Literal[14], u8] = 14
    length: Annotated[Literal[16], u8] = 16
    reserved: ClassVar[Word] = Reserved(2)
    discovery_range_base_address: U64
    discovery_range_length: U32
    """Bytes; 128 KiB per CPU with a GICv3."""


class GicIts(Struct, size=20):
    """GIC Interrupt Translation Service (5.2.12.18)."""

    TYPE: ClassVar[int] = 15
    type: Annotated[Literal[15], u8] = 15
    length: Annotated[Literal[20], u8] = 20
    reserved: ClassVar[Word] = Reserved(2)
    gic_its_id: U32 = 0
    physical_base_address: U64
    reserved_2: ClassVar[Word] = Reserved(4)


class OtherController(NamedTuple):
    """A structure of another type, or of a known type in another length: its bytes, type and length included."""

    data: bytes

    @property
    def type(self) -> int:
        """Interrupt controller structure type (table 5.21)."""
        return self.data[0]

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The structure that :meth:`plain` described.  Raises ValueError where its length byte says otherwise."""
        data = hex_in(plain, "data")
        if len(data) < 2 or data[1] != len(data):
            raise ValueError(f"'data': {len(data)} bytes given, its length says otherwise")
        return cls(data)

    def encode(self) -> bytes:
        """The bytes."""
        return self.data

    def plain(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return {"type": self.type, "data": self.data.hex()}


Controller = GicCpuInterface | GicDistributor | GicMsiFrame | GicRedistributor | GicIts | OtherController
CONTROLLERS: dict[int, type[Struct]] = {
    k.TYPE: k for k in (GicCpuInterface, GicDistributor, GicMsiFrame, GicRedistributor, GicIts)
}
"""Type to structure."""


class _AnyController(c.Construct):  # type: ignore[misc]
    """One structure, told apart by its type byte and framed by its length byte."""

    def _parse(self, stream: Any, context: Any, path: str) -> Struct | OtherController:
        at, name = stream.tell(), f"controllers[{context._index}]"
        head = stream.read(2)
        stream.seek(at)
        length = head[1] if len(head) == 2 else 2
        if length < 2:
            raise DecodeError(
                f"{length} bytes is less than its own head", structure="Madt", path=f"{name}.length", offset=at + 1
            )
        kind = CONTROLLERS.get(head[0])
        if kind is None or length != kind.SIZE:
            data = stream.read(length)
            if len(data) < length:
                raise TruncatedError(
                    f"{length} bytes needed, {len(data)} given", structure="Madt", path=name, offset=at
                )  # fmt: skip
            return OtherController(data)
        try:
            found: Struct = Wire(kind)._parse(stream, context, path)
        except WireError as error:
            raise error.within("Madt", name) from None
        return found

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        stream.write(obj.encode())
        return obj


@dataclass(frozen=True)
class Madt:
    """The whole table: header (length and checksum are set when it is built) and structures in order."""

    controllers: tuple[Controller, ...]
    header: TableHeader = field(default_factory=lambda: TableHeader(signature="APIC", length=0, revision=5))
    local_interrupt_controller_address: int = 0
    flags: int = 0
    """Bit 0: the machine has a PC's pair of 8259s."""

    _FIXED: ClassVar[c.Construct] = c.Struct("address" / c.Int32ul, "flags" / c.Int32ul)

    def build(self) -> bytes:
        """The table's bytes, with length and checksum."""
        fixed = self._FIXED.build({"address": self.local_interrupt_controller_address, "flags": self.flags})
        body: bytes = c.Array(len(self.controllers), _AnyController()).build(list(self.controllers))
        return seal(self.header, fixed + body)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a table.  Raises DecodeError, TruncatedError with path and offset."""
        header, body = open_table(data, "APIC", structure="Madt")
        if len(body) < cls._FIXED.sizeof():
            raise TruncatedError(
                f"8 bytes needed, {len(body)} given", structure="Madt", path="flags", offset=header.SIZE
            )
        fixed = cls._FIXED.parse(body)
        whole = data[: header.length]
        count = cls._count(whole, header.SIZE + 8)
        found = c.Struct("fixed" / c.Bytes(header.SIZE + 8), "controllers" / c.Array(count, _AnyController()))
        return cls(tuple(found.parse(whole).controllers), header, fixed.address, fixed.flags)

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""
        return {
            "header": self.header.plain(),
            "local_interrupt_controller_address": self.local_interrupt_controller_address,
            "flags": self.flags,
            "controllers": [s.plain() for s in self.controllers],
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        found: list[Any] = []
        for index, item in enumerate(objects_in(plain, "controllers")):
            kind = OtherController if "data" in item else CONTROLLERS.get(number_in(item, "type"))
            if kind is None:
                raise ValueError(f"controllers[{index}].type: {item['type']!r} is unknown, and there is no data")
            found.append(kind.of_plain(item))
        address = number_in(plain, "local_interrupt_controller_address", 0)
        return cls(
            tuple(found), TableHeader.of_plain(object_in(plain, "header")), address, number_in(plain, "flags", 0)
        )

    @staticmethod
    def _count(data: bytes, at: int) -> int:
        """How many structures fill the table; one that is cut off counts, so that reading it says what is wrong."""
        count = 0
        while at < len(data):
            count += 1
            if at + 1 >= len(data) or data[at + 1] < 2:
                break
            at += data[at + 1]
            if count > MAX_CONTROLLERS:
                raise DecodeError(
                    f"more than {MAX_CONTROLLERS} structures", structure="Madt", path="controllers", offset=at
                )
        return count
