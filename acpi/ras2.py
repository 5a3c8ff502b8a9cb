"""ACPI RAS2 Feature Table (ACPI 6.5, 5.2.21) and what its PCC subspaces share with OSPM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from acpi.frame import ListTable, TableHead
from acpi.rasf import ParameterBlockHeader, PatrolScrubCommand, Range, RasfPatrolScrub, RasSharedMemory
from cper.wire import (
    U8,
    U16,
    U32,
    U64,
    Bits,
    DecodeError,
    EncodeError,
    OpenEnum,
    Reserved,
    Struct,
    TruncatedError,
    WireError,
    Word,
    blob,
    u8,
    u16,
    u32,
)
from cper.words import counted


class Ras2Header(TableHead, size=40):
    """Fixed part of the table."""

    reserved: ClassVar[Word] = Reserved(2)
    pcc_descriptor_count: U16
    """Descriptors that follow."""


class Ras2Feature(OpenEnum):
    """What a PCC subspace is for."""

    MEMORY = 0


class Ras2PccDescriptor(Struct, size=8):
    """PCC descriptor: a subspace, and what it serves."""

    pcc_subspace_id: U8
    """The PCC subspace."""
    reserved: ClassVar[Word] = Reserved(2)
    feature_type: Annotated[Ras2Feature, u8] = Ras2Feature.MEMORY
    """What it is for."""
    instance: U32 = 0
    """For memory: the proximity domain."""


class Ras2(ListTable[Ras2Header, Ras2PccDescriptor]):
    """ACPI RAS2 Feature Table (5.2.21)."""

    SIGNATURE = "RAS2"
    REVISION = 1
    HEAD = Ras2Header
    ENTRY = Ras2PccDescriptor
    COUNT = "pcc_descriptor_count"


class Ras2PatrolScrub(ParameterBlockHeader, size=312):
    """Parameter block for patrol scrubbing (5.2.21.2)."""

    type: U16 = 0
    length: U16 = 312
    command: Annotated[PatrolScrubCommand, u16]
    """What OSPM asks."""
    requested_address_range: Range = (0, 0)
    """What to scrub: guest physical address, bytes."""
    actual_address_range: Range = (0, 0)
    """What the scrubber really covers: guest physical address, bytes."""
    flags: ClassVar[Word] = Word("I")
    running: Annotated[bool, Bits("flags", 0, 1)] = False
    """The scrubber runs."""
    scrub_params_out: U32 = 0
    """What the scrubber does: background, current, least and greatest rate, 8 bits each."""
    scrub_params_in: U32 = 0
    """What OSPM asks for: background, and the rate in bits 15:8."""
    extended_scrub_params: U32 = 0
    """Bit 0: the rate descriptor counts."""
    scrub_rate_description: Annotated[bytes, blob(256)] = bytes(256)
    """The rates in words."""


class TranslationCommand(OpenEnum):
    """What OSPM asks of the address translation."""

    GET_LA2PA_TRANSLATION = 1


class TranslationStatus(OpenEnum):
    """How a translation went."""

    SUCCESS = 0
    FAIL = 1


class Ras2AddressTranslation(ParameterBlockHeader, size=36):
    """Parameter block for logical to physical address translation (5.2.21.3)."""

    type: U16 = 1
    length: U16 = 36
    command: Annotated[TranslationCommand, u16] = TranslationCommand.GET_LA2PA_TRANSLATION
    """What OSPM asks."""
    sub_instance_id: U64 = 0
    """Which part of the instance the logical address is in."""
    logical_address: U64 = 0
    """What OSPM has."""
    physical_address: U64 = 0
    """What OSPM wants: the platform's answer."""
    status: Annotated[TranslationStatus, u32] = TranslationStatus.SUCCESS
    """How it went."""


ParameterBlock = Ras2PatrolScrub | Ras2AddressTranslation | RasfPatrolScrub | bytes

_RAS2_BLOCKS: dict[int, type[Ras2PatrolScrub | Ras2AddressTranslation]] = {
    0: Ras2PatrolScrub,
    1: Ras2AddressTranslation,
}
_SMALLEST = 6


class RasMemory(NamedTuple):
    """The shared memory of a RASF or RAS2 subspace: its fixed part, and the parameter blocks behind it.

    A block of a type or a length that is not known stays bytes.
    """

    head: RasSharedMemory
    blocks: tuple[ParameterBlock, ...]

    @classmethod
    def decode(cls, data: bytes, *, rasf: bool = False) -> Self:
        """Read a subspace's memory; ``rasf`` says that it is RASF's.  Raises TruncatedError, DecodeError."""
        name = cls.__name__
        try:
            head = RasSharedMemory.decode(data)
        except WireError as error:
            raise error.within(name, "head") from None
        at, blocks = head.SIZE, list[ParameterBlock]()
        for index in range(head.parameter_block_count):
            path = f"blocks[{index}].length"
            if at + _SMALLEST > len(data):
                raise TruncatedError(
                    f"{_SMALLEST} bytes needed, {len(data) - at} given", structure=name, path=path, offset=at
                )
            kind, length = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (0, 4))
            if length < _SMALLEST:
                raise DecodeError(
                    f"{counted(length, 'byte')} is less than {_SMALLEST}", structure=name, path=path, offset=at + 4
                )
            if at + length > len(data):
                raise TruncatedError(
                    f"{length} bytes needed, {len(data) - at} given", structure=name, path=path, offset=at + 4
                )
            blocks.append(_block(data[at : at + length], kind, rasf))
            at += length
        return cls(head, tuple(blocks))

    @classmethod
    def of(cls, head: RasSharedMemory, blocks: Iterable[ParameterBlock]) -> Self:
        """The memory with these blocks; the head's count is set right."""
        found = tuple(blocks)
        return cls(head.model_copy(update={"parameter_block_count": len(found)}), found)

    def encode(self) -> bytes:
        """The memory's bytes.  Raises EncodeError where the head's count is not that of the blocks."""
        if self.head.parameter_block_count != len(self.blocks):
            raise EncodeError(
                f"{counted(len(self.blocks), 'block')}, but the head says {self.head.parameter_block_count}",
                structure="RasMemory", path="head.parameter_block_count",
                offset=RasSharedMemory.at("parameter_block_count").offset,
            )  # fmt: skip
        return self.head.encode() + b"".join(b if isinstance(b, bytes) else b.encode() for b in self.blocks)

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the memory."""
        return {
            "head": self.head.plain(),
            "blocks": [{"data": b.hex()} if isinstance(b, bytes) else b.plain() for b in self.blocks],
        }


def _block(data: bytes, kind: int, rasf: bool) -> ParameterBlock:
    found = (RasfPatrolScrub if kind == 0 else None) if rasf else _RAS2_BLOCKS.get(kind)
    return data if found is None or len(data) != found.SIZE else found.decode(data)


__all__ = [
    "ParameterBlock", "Ras2", "Ras2AddressTranslation", "Ras2Feature", "Ras2Header", "Ras2PatrolScrub",
    "Ras2PccDescriptor", "RasMemory", "TranslationCommand", "TranslationStatus",
]  # fmt: skip
