"""Auxiliary data of the Arm RAS node section (Arm DEN0085, revision 1): registers of the SoC, and values by key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar
from uuid import UUID

import construct as c

from cper.framed import Frame, Frames, Gap, Head, Many, Upto
from cper.wire import U8, U16, U32, U64, Bits, Guid, Reserved, Struct, Word

KEYS: dict[str, UUID] = {"mpam_partid": UUID("ebb45182-fb03-4bf9-9aca-8613709fd789")}
"""Keys that have a name: the low 16 bits of this one's value are an MPAM PARTID."""


class ArmRasAuxiliaryHead(Struct, size=16):
    """What auxiliary data begin with."""

    version: U8 = 1
    reserved: ClassVar[Word] = Reserved(1)
    address_space_count: U16 = 0
    """Address spaces that follow."""
    auxiliary_data_size: U32 = 16
    """Bytes, this head included."""
    key_value_pair_offset: U32 = 16
    """Bytes from the start of this head to the values by key."""
    key_value_pair_count: U16 = 0
    """How many of those."""
    reserved_2: ClassVar[Word] = Reserved(2)


class ArmRasAddressSpaceHead(Struct, size=16):
    """What the registers of one address space begin with."""

    length: U32 = 16
    """Bytes, this head and the registers included."""
    flags: ClassVar[Word] = Word("B")
    local: Annotated[bool, Bits("flags", 0, 1)] = False
    """Addresses are local to the SoC's address space, not system physical addresses."""
    reserved: ClassVar[Word] = Reserved(1)
    register_count: U16 = 0
    """Registers that follow."""
    address_space_identifier: U16 = 0
    """Which local address space."""
    reserved_2: ClassVar[Word] = Reserved(6)


class ArmRasRegister(Struct, size=16):
    """A memory mapped register."""

    address: U64
    value: U64


class ArmRasKeyValuePair(Struct, size=24):
    """A value whose meaning its key tells."""

    key: Guid
    value: U64


@dataclass(frozen=True)
class ArmRasAddressSpace(Frame[ArmRasAddressSpaceHead]):
    """Registers of one address space."""

    FRAME = c.Struct(
        "head" / Head(ArmRasAddressSpaceHead, "length"),
        "registers" / Many(ArmRasRegister, ArmRasAddressSpaceHead, "register_count", "length"),
        "data" / Upto("length"),
    )

    registers: tuple[ArmRasRegister, ...] = ()
    """The registers."""
    data: bytes = b""
    """Bytes behind them, up to the length."""


@dataclass(frozen=True)
class ArmRasAuxiliary(Frame[ArmRasAuxiliaryHead]):
    """Auxiliary data."""

    FRAME = c.Struct(
        "head" / Head(ArmRasAuxiliaryHead, "auxiliary_data_size"),
        "address_spaces" / Frames(ArmRasAddressSpace, "address_space_count", "auxiliary_data_size"),
        "gap" / Gap(ArmRasAuxiliaryHead, "key_value_pair_offset", "key_value_pair_count"),
        "key_value_pairs"
        / Many(ArmRasKeyValuePair, ArmRasAuxiliaryHead, "key_value_pair_count", "auxiliary_data_size"),
        "data" / Upto("auxiliary_data_size"),
    )

    address_spaces: tuple[ArmRasAddressSpace, ...] = ()
    """Registers by address space."""
    gap: bytes = b""
    """Bytes between those and the values by key."""
    key_value_pairs: tuple[ArmRasKeyValuePair, ...] = ()
    """Values by key."""
    data: bytes = b""
    """Bytes behind those, up to the size."""
