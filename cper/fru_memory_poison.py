"""FRU Memory Poison section (UEFI 2.11, N.2.15): which memory of a field-replaceable unit is known to be bad."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import construct as c

from cper.framed import FramedSection, Head, Many, Upto
from cper.wire import U32, U64, Bits, OpenEnum, Struct, Valid, ValidationBits, Word, u32


class FruArchitectureType(OpenEnum):
    """What fru_architecture_value is (FRU Architecture Type)."""

    X86_CPUID_1_EAX = 0


class FruIdentifierType(OpenEnum):
    """What fru_identifier_value is (FRU Identifier Type)."""

    X86_PPIN = 0


class PoisonHardwareIdentifierType(OpenEnum):
    """What hardware_identifier_value is (Hardware Identifier Type)."""

    MCA_IPID = 0


class PoisonAddressType(OpenEnum):
    """What address_value is (Address Type)."""

    MCA_ADDR = 0


class FruPoisonDescriptor(Struct, size=32):
    """One error (FRU Memory Poison Descriptor)."""

    poison_timestamp: U64 = 0
    """When it was found: seconds since the Unix epoch."""
    hardware_identifier_type: Annotated[PoisonHardwareIdentifierType, u32] = PoisonHardwareIdentifierType.MCA_IPID
    """What hardware_identifier_value is."""
    hardware_identifier_value: U64
    """The hardware that reported it."""
    address_type: Annotated[PoisonAddressType, u32] = PoisonAddressType.MCA_ADDR
    """What address_value is."""
    address_value: U64
    """Where it lies."""


class FruMemoryPoisonHead(Struct, size=40):
    """What precedes the poison list of a FRU Memory Poison section."""

    checksum: U32 = 0
    """Makes the 32-bit words of the section, list included, add up to 0."""
    validation_bits: ClassVar[Word] = ValidationBits("Q")
    poison_list_valid: Annotated[bool, Bits("validation_bits", 5, 6)] = False
    """Whether a poison list follows."""
    fru_architecture_type: Annotated[FruArchitectureType | None, u32, Valid(0)] = None
    """What fru_architecture_value is."""
    fru_architecture_value: Annotated[U64 | None, Valid(1)] = None
    """Architecture of the unit."""
    fru_identifier_type: Annotated[FruIdentifierType | None, u32, Valid(2)] = None
    """What fru_identifier_value is."""
    fru_identifier_value: Annotated[U64 | None, Valid(3)] = None
    """Which unit."""
    poison_list_entries: Annotated[U32 | None, Valid(4)] = None
    """Descriptors in the list."""


@dataclass(frozen=True)
class FruMemoryPoison(FramedSection[FruMemoryPoisonHead], guid="5e4706c1-5356-48c6-930b-52f2120a4458"):
    """The poison list of a unit.

    Descriptors are read where both the validation bit of the list and that of their number are set; else they are
    trailing bytes.
    """

    FRAME = c.Struct(
        "head" / Head(FruMemoryPoisonHead),
        "poison_list"
        / Many(FruPoisonDescriptor, FruMemoryPoisonHead, "poison_list_entries", valid="poison_list_valid"),
        "trailing" / Upto(),
    )

    poison_list: tuple[FruPoisonDescriptor, ...] = ()
    """The errors."""
    trailing: bytes = b""
    """Bytes behind the last descriptor."""

    @classmethod
    def of(cls, poison_list: Iterable[FruPoisonDescriptor] = (), **fields: Any) -> Self:
        """The section with this list, its checksum right; ``fields`` are those of its head."""
        errors = tuple(poison_list)
        counts = {"poison_list_entries": len(errors), "poison_list_valid": True}
        made = cls(FruMemoryPoisonHead(**(counts | fields | {"checksum": 0})), errors)
        return replace(made, head=FruMemoryPoisonHead(**(counts | fields | {"checksum": -made.word_sum() % (1 << 32)})))

    def word_sum(self) -> int:
        """The sum of the 32-bit words of head and list, as 32 bits: 0 where the checksum is right."""
        size = FruMemoryPoisonHead.SIZE + FruPoisonDescriptor.SIZE * len(self.poison_list)
        raw = self.encode()[:size]
        return sum(int.from_bytes(raw[at : at + 4], "little") for at in range(0, size, 4)) % (1 << 32)
