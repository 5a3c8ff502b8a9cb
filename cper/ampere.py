"""Ampere sections (rasdaemon non-standard-ampere.h; libcper cper-section-ampere.h): for the kernel, and for the BMC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import construct as c

from cper.framed import FramedSection, Head, Kinds, Upto
from cper.wire import U8, U16, U32, U64, Bits, OpenEnum, Reserved, Struct, Word


class AmpereErrorType(OpenEnum):
    """What failed (bits 5:0 of Type)."""

    CPU = 0
    MCU = 1
    MESH = 2
    LINK_2P_QS = 3
    LINK_2P_MQ = 4
    GIC = 5
    SMMU = 6
    PCIE_AER = 7
    PCIE_RASDP = 8
    OCM = 9
    SMPRO = 10
    PMPRO = 11
    ATF_FIRMWARE = 12
    SMPRO_FIRMWARE = 13
    PMPRO_FIRMWARE = 14
    BERT = 63


class AmperePayload(Struct):
    """What every payload begins with.  Not a structure by itself."""

    type: ClassVar[Word] = Word("B")
    error_type: Annotated[AmpereErrorType, Bits("type", 0, 6)]
    """What failed."""
    payload_type: Annotated[int, Bits("type", 6, 8)] = 0
    """What follows."""
    subtype: U8 = 0
    instance: ClassVar[Word] = Word("H")
    instance_number: Annotated[int, Bits("instance", 0, 14)] = 0
    socket: Annotated[int, Bits("instance", 14, 16)] = 0


class AmpereErrorRecord(AmperePayload, size=48):
    """Error record of the Arm RAS extension (payload type 0)."""

    err_status: U32 = 0
    err_addr: U64 = 0
    err_misc_0: U64 = 0
    err_misc_1: U64 = 0
    err_misc_2: U64 = 0
    err_misc_3: U64 = 0


class AmperePcieAer(AmperePayload, size=48):
    """Registers of PCIe AER (payload type 1)."""

    payload_type: Annotated[int, Bits("type", 6, 8)] = 1
    uncorrectable_status: U32 = 0
    uncorrectable_mask: U32 = 0
    uncorrectable_severity: U32 = 0
    correctable_status: U32 = 0
    correctable_mask: U32 = 0
    root_error_command: U32 = 0
    root_error_status: U32 = 0
    source_id: U32 = 0
    reserved_1: ClassVar[Word] = Reserved(4)
    reserved_2: ClassVar[Word] = Reserved(8)


class AmperePcieRasdp(AmperePayload, size=48):
    """Data path error of PCIe (payload type 2)."""

    payload_type: Annotated[int, Bits("type", 6, 8)] = 2
    ce_register: U32 = 0
    """Corrected."""
    ce_location: U32 = 0
    ce_addr: U32 = 0
    ue_register: U32 = 0
    """Uncorrected."""
    ue_location: U32 = 0
    ue_addr: U32 = 0
    reserved_1: ClassVar[Word] = Reserved(4)
    reserved_2: ClassVar[Word] = Reserved(8)
    reserved_3: ClassVar[Word] = Reserved(8)


class AmpereFirmware(AmperePayload, size=48):
    """What firmware has to say (payload type 3)."""

    payload_type: Annotated[int, Bits("type", 6, 8)] = 3
    data_0: U32 = 0
    data_1: U64 = 0
    data_2: U64 = 0
    data_3: U64 = 0
    data_4: U64 = 0
    data_5: U64 = 0


PAYLOADS = Kinds(
    AmpereErrorRecord,
    {1: AmperePcieAer, 2: AmperePcieRasdp, 3: AmpereFirmware},
    lambda body, at: body[at] >> 6 if len(body) > at else 0,
    lambda value: value.get("payload_type") if isinstance(value.get("payload_type"), int) else 0,
)
"""Payloads by their type."""


class _Payload(Head):
    """The payload that its own type asks for."""

    def __init__(self) -> None:
        super().__init__(AmpereErrorRecord)
        self.reader = PAYLOADS

    def kind_of(self, body: bytes) -> type[Struct]:
        return PAYLOADS.of_body(body, 0)


@dataclass(frozen=True)
class Ampere(FramedSection[AmperePayload], guid="e8ed898d-df16-43cc-8ecc-54f060ef157f"):
    """An error of an Ampere SoC, as its firmware tells the kernel."""

    FRAME = c.Struct("head" / _Payload(), "trailing" / Upto())

    trailing: bytes = b""
    """Bytes behind the payload."""


class AmpereBmcHead(Struct, size=8):
    """What precedes the payload."""

    type_id: U16
    subtype_id: U16 = 0
    instance_id: U32 = 0


@dataclass(frozen=True)
class AmpereBmc(FramedSection[AmpereBmcHead], guid="2826cc9f-448c-4c2b-86b6-a95394b7ef33"):
    """An error of an Ampere SoC, as its firmware tells the BMC."""

    FRAME = c.Struct("head" / Head(AmpereBmcHead), "payload" / Upto())

    payload: bytes = b""
    """What follows; its layout is not public."""
