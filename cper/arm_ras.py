"""Arm RAS node section (Arm DEN0085, revision 1): error records of a node as RAS System Architecture has them.

No public text of DEN0085 was read: the layout is that of libcper's header, and what its code says of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import construct as c

from cper.arm_ras_auxiliary import ArmRasAuxiliary
from cper.framed import FramedSection, Frames, Gap, Head, Kinds, Many, One, Upto
from cper.wire import U16, U32, U64, Bits, OpenEnum, Reserved, Struct, Word, blob, text, u8


class ArmRasComponentType(OpenEnum):
    """What kind of node (Component Type): node types of AEST."""

    PROCESSOR = 0
    MEMORY = 1
    SMMU = 2
    VENDOR_DEFINED = 3
    GIC = 4
    PCI_EXPRESS = 5
    PROXY = 6


class ArmRasInstanceFormat(OpenEnum):
    """What the IP Instance is."""

    PE = 0
    SYSTEM_PHYSICAL_ADDRESS = 1
    LOCAL_ADDRESS = 2
    SOC_SPECIFIC = 3


class ArmRasTypeFormat(OpenEnum):
    """What the IP Type is."""

    PE = 0
    SMMU_IIDR = 1
    GIC_IIDR = 2
    PIDR = 3
    INVALID = 255


class ArmRasHead(Struct, size=24):
    """What the section begins with."""

    revision: U32 = 1
    component_type: Annotated[ArmRasComponentType, u8]
    """What kind of node."""
    reserved: ClassVar[Word] = Reserved(3)
    error_syndrome_count: U32 = 0
    """Error Syndrome Array Entries."""
    error_syndrome_offset: U16 = 80
    """Bytes from the start of the section to them."""
    auxiliary_data_offset: U16 = 0
    """Bytes from the start of the section; 0: there is none."""
    ip_instance_format: Annotated[ArmRasInstanceFormat, u8] = ArmRasInstanceFormat.PE
    """What ip_instance is."""
    ip_type_format: Annotated[ArmRasTypeFormat, u8] = ArmRasTypeFormat.INVALID
    """What ip_type is."""
    reserved_2: ClassVar[Word] = Reserved(6)


class ArmRasPeInstance(Struct, size=16):
    """A processing element."""

    mpidr: U64
    """MPIDR_EL1."""
    reserved: ClassVar[Word] = Reserved(8)


class ArmRasPhysicalInstance(Struct, size=16):
    """What stands at a physical address."""

    system_physical_address: U64
    reserved: ClassVar[Word] = Reserved(8)


class ArmRasLocalInstance(Struct, size=16):
    """What stands in an address space of the SoC's own."""

    local_address_space: U64
    """Which space."""
    base_address: U64


class ArmRasSocInstance(Struct, size=16):
    """What only the SoC's vendor can name."""

    identifier: Annotated[bytes, blob(16)]


class ArmRasPeType(Struct, size=24):
    """Identification of a processing element."""

    midr: U64
    """MIDR_EL1."""
    revidr: U64 = 0
    """REVIDR_EL1."""
    aidr: U64 = 0
    """AIDR_EL1."""


class ArmRasIidrType(Struct, size=24):
    """Identification of an SMMU."""

    iidr: U32
    aidr: U32 = 0
    reserved: ClassVar[Word] = Reserved(16)


class ArmRasOtherType(Struct, size=24):
    """Identification of another form.

    Of the last two libcper contradicts itself: what it calls GIC_IIDR it reads as PIDR, and PIDR not at all.
    """

    identification: Annotated[bytes, blob(24)]


class ArmRasUserData(Struct, size=16):
    """User Data."""

    value: Annotated[str, text(16)] = ""


class ArmRasErrorRecord(Struct, size=72):
    """One error record of the node (entry of the Error Syndrome Array)."""

    error_record_index: U32
    """Number of the record in the node."""
    ras_extension_revision: ClassVar[Word] = Word("B")
    architecture_version: Annotated[int, Bits("ras_extension_revision", 0, 4)] = 0
    """ARCHVER of the node's ERRDEVARCH."""
    architecture_revision: Annotated[int, Bits("ras_extension_revision", 4, 8)] = 0
    """REVISION of the node's ERRDEVARCH; where it is 0 the record has no misc2 and misc3."""
    reserved: ClassVar[Word] = Reserved(3)
    fr: U64 = 0
    """ERR<n>FR, features."""
    ctlr: U64 = 0
    """ERR<n>CTLR, control."""
    status: U64 = 0
    """ERR<n>STATUS, primary status."""
    addr: U64 = 0
    """ERR<n>ADDR, address."""
    misc0: U64 = 0
    misc1: U64 = 0
    misc2: U64 = 0
    misc3: U64 = 0


def _chosen(other: type[Struct], known: dict[int, type[Struct]], field: str) -> Kinds:
    """Structures by a format that the head tells; in JSON the names of its members tell."""
    place = ArmRasHead.at(field).offset
    members = {frozenset(kind.model_fields) - {"residue"}: number for number, kind in known.items()}

    def plain_key(value: Mapping[str, Any]) -> int | None:
        return members.get(frozenset(value) - {"residue"})

    return Kinds(other, known, lambda body, at: body[place], plain_key)


INSTANCES = _chosen(
    ArmRasSocInstance,
    {0: ArmRasPeInstance, 1: ArmRasPhysicalInstance, 2: ArmRasLocalInstance, 3: ArmRasSocInstance},
    "ip_instance_format",
)
"""IP Instance by its format."""
TYPES = _chosen(ArmRasOtherType, {0: ArmRasPeType, 1: ArmRasIidrType}, "ip_type_format")
"""IP Type by its format."""


class _Auxiliary(Frames):
    """Auxiliary data, where the head says that there is some."""

    def count(self, head: Mapping[str, Any]) -> int:
        return bool(head[self.counter])


@dataclass(frozen=True)
class ArmRas(FramedSection[ArmRasHead], guid="bf32d4d5-b427-4025-8495-8a9e5d4030e4"):
    """Errors of one node."""

    FRAME = c.Struct(
        "head" / Head(ArmRasHead),
        "ip_instance" / One(INSTANCES),
        "ip_type" / One(TYPES),
        "user_data" / One(ArmRasUserData),
        "gap" / Gap(ArmRasHead, "error_syndrome_offset", "error_syndrome_count"),
        "error_records" / Many(ArmRasErrorRecord, ArmRasHead, "error_syndrome_count"),
        "gap_2" / Gap(ArmRasHead, "auxiliary_data_offset", "auxiliary_data_offset"),
        "auxiliary" / _Auxiliary(ArmRasAuxiliary, "auxiliary_data_offset"),
        "trailing" / Upto(),
    )

    ip_instance: Struct
    """Which instance of the component."""
    ip_type: Struct
    """Which component it is."""
    user_data: ArmRasUserData
    """Text of the platform's own."""
    gap: bytes = b""
    """Bytes before the error records."""
    error_records: tuple[ArmRasErrorRecord, ...] = ()
    """The node's error records."""
    gap_2: bytes = b""
    """Bytes between those and the auxiliary data."""
    auxiliary: tuple[ArmRasAuxiliary, ...] = ()
    """Auxiliary data, where there is some."""
    trailing: bytes = b""
    """Bytes behind it all."""
