"""NVIDIA event section of Vera (libcper cper-section-nvidia-events.h): an event of a CPU or GPU, with contexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import construct as c

from cper.framed import Beginning, Frame, FramedSection, Frames, Head, Many, Part, Reader, Upto
from cper.plain import object_in
from cper.wire import U8, U16, U32, U64, Bits, OpenEnum, Reserved, Struct, Word, array, text, u8
from cper.words import counted


class NvidiaEventSource(OpenEnum):
    """What the event is about (Source Device Type)."""

    CPU = 0
    GPU = 1
    DPU = 2
    NIC = 3
    SWX = 4
    BMC = 5


class NvidiaEventHead(Struct, size=32):
    """What the section begins with."""

    event_version: U8 = 1
    event_context_count: U8 = 0
    """Contexts that follow the event information."""
    source_device_type: Annotated[NvidiaEventSource, u8]
    """What the event is about."""
    reserved: ClassVar[Word] = Reserved(1)
    event_type: U16 = 0
    event_subtype: U16 = 0
    event_link_id: U64 = 0
    """What events that belong together have alike; 0: nothing."""
    signature: Annotated[str, text(16)] = ""
    """Name of the unit."""


class NvidiaEventInfoHead(Struct, size=3):
    """What precedes the event information."""

    info_version: ClassVar[Word] = Word("H")
    minor: Annotated[int, Bits("info_version", 0, 8)] = 0
    """Of the version."""
    major: Annotated[int, Bits("info_version", 8, 16)] = 0
    """Of the version."""
    info_size: U8 = 3
    """Bytes, this head included."""


class NvidiaCpuInfo(Struct, size=29):
    """Where it happened in a CPU."""

    socket_number: U8 = 0
    architecture: U32 = 0
    ecid: Annotated[tuple[int, ...], array("I", 4)] = (0, 0, 0, 0)
    """Number of the chip."""
    instance_base: U64 = 0
    """Address of the unit's registers."""


class NvidiaGpuInfo(Struct, size=13):
    """Where it happened in a GPU."""

    event_originator: U8 = 0
    source_partition: U16 = 0
    source_sub_partition: U16 = 0
    pdi: U64 = 0
    """Number of the device."""


@dataclass(frozen=True)
class NvidiaEventInfo(Frame[NvidiaEventInfoHead]):
    """Event information: of a CPU or a GPU where it is as long as that."""

    FRAME = c.Struct(
        "head" / Head(NvidiaEventInfoHead, "info_size"),
        "cpu" / Beginning(NvidiaCpuInfo, NvidiaEventInfoHead, within="info_size", whole=True),
        "gpu" / Beginning(NvidiaGpuInfo, NvidiaEventInfoHead, within="info_size", whole=True),
        "data" / Upto("info_size"),
    )

    cpu: tuple[NvidiaCpuInfo, ...] = ()
    """Of a CPU."""
    gpu: tuple[NvidiaGpuInfo, ...] = ()
    """Of a GPU."""
    data: bytes = b""
    """Of another length."""


class NvidiaEventContextHead(Struct, size=16):
    """What precedes the data of a context."""

    context_size: U32 = 16
    """Bytes, this head and padding to a multiple of 16 included."""
    context_version: U16 = 0
    reserved: ClassVar[Word] = Reserved(2)
    data_format_type: U16 = 0
    """0 opaque, 1 and 2 pairs of 64 and 32 bits, 3 and 4 values of 64 and 32 bits; others are the device's."""
    data_format_version: U16 = 0
    data_size: U32 = 0
    """Bytes of the data."""


class NvidiaPair64(Struct, size=16):
    """A value by its key."""

    key: U64
    value: U64


class NvidiaPair32(Struct, size=8):
    """A value by its key."""

    key: U32
    value: U32


class NvidiaValue64(Struct, size=8):
    """A value."""

    value: U64


class NvidiaValue32(Struct, size=4):
    """A value."""

    value: U32


FORMATS: dict[int, type[Struct]] = {1: NvidiaPair64, 2: NvidiaPair32, 3: NvidiaValue64, 4: NvidiaValue32}
"""What data are made of, by their format."""


class _Values(Many):
    """As many values of the format as the data have room for."""

    def __init__(self) -> None:
        super().__init__(NvidiaPair64, NvidiaEventContextHead, "data_size", "context_size")

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
        kind, size, left = FORMATS.get(head["data_format_type"]), head["data_size"], head["context_size"] - at
        if size > left:
            raise self.truncated(f"{counted(size, 'byte')} needed, {left} given", "head.data_size", self.place)
        if kind is None:
            return (), at
        places = range(at, at + size - size % kind.SIZE, kind.SIZE)
        return tuple(kind.decode(body, place) for place in places), places.stop

    _lines = Part._lines


@dataclass(frozen=True)
class NvidiaEventContext(Frame[NvidiaEventContextHead]):
    """A context: values where the format is known, else bytes."""

    FRAME = c.Struct(
        "head" / Head(NvidiaEventContextHead, "context_size"), "values" / _Values(), "data" / Upto("context_size")
    )

    values: tuple[Struct, ...] = ()
    """The values."""
    data: bytes = b""
    """Data of another format, what is left of a value, padding."""

    @classmethod
    def kinds(cls, plain: Mapping[str, Any]) -> Mapping[str, Reader]:
        """What its head's format asks for."""
        number = NvidiaEventContextHead.of_plain(object_in(plain, "head")).data_format_type
        return {**cls.KINDS, "values": FORMATS.get(number, NvidiaPair64)}


class _Information(Frames):
    """The event information, which is always there."""

    def count(self, head: Mapping[str, Any]) -> int:
        return 1


@dataclass(frozen=True)
class NvidiaEvent(FramedSection[NvidiaEventHead], guid="9068e568-6ca0-11f0-aeaf-159343591eac"):
    """An event of an NVIDIA device."""

    FRAME = c.Struct(
        "head" / Head(NvidiaEventHead),
        "information" / _Information(NvidiaEventInfo, ""),
        "contexts" / Frames(NvidiaEventContext, "event_context_count"),
        "trailing" / Upto(),
    )

    information: tuple[NvidiaEventInfo, ...] = ()
    """Where it happened."""
    contexts: tuple[NvidiaEventContext, ...] = ()
    """What belongs to it."""
    trailing: bytes = b""
    """Bytes behind the last context."""
