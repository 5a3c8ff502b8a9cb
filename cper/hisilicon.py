"""HiSilicon sections of Kunpeng (rasdaemon non-standard-hisi*.c): OEM types 1 and 2, PCIe local, the common one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import construct as c

from cper.common import Severity
from cper.framed import FramedSection, Head, Many, Upto
from cper.section import Section
from cper.wire import U8, U16, U32, U64, Reserved, Struct, Valid, ValidationBits, Word, array, u8


class HisiliconOemType1(Section, size=40, guid="1f8161e1-55d6-41e6-bd10-7afd1dc5f7c5"):
    """HIP08 OEM error of type 1: MN, PLL, SLLC, AA, SIOE, POE, DISP, LPC, GIC, RDE, SAS, SATA or USB."""

    validation_bits: ClassVar[Word] = ValidationBits("I")
    version: U8 = 0
    soc_id: Annotated[U8 | None, Valid(0)] = None
    socket_id: Annotated[U8 | None, Valid(1)] = None
    nimbus_id: Annotated[U8 | None, Valid(2)] = None
    """Die."""
    module_id: Annotated[U8 | None, Valid(3)] = None
    submodule_id: Annotated[U8 | None, Valid(4)] = None
    severity: Annotated[Severity | None, u8, Valid(5)] = None
    reserved: ClassVar[Word] = Reserved(1)
    misc_0: Annotated[U32 | None, Valid(6)] = None
    misc_1: Annotated[U32 | None, Valid(7)] = None
    misc_2: Annotated[U32 | None, Valid(8)] = None
    misc_3: Annotated[U32 | None, Valid(9)] = None
    misc_4: Annotated[U32 | None, Valid(10)] = None
    address: Annotated[U64 | None, Valid(11)] = None


class HisiliconOemType2(Section, size=60, guid="45534ea6-ce23-4115-8535-e07ab3aef91d"):
    """HIP08 OEM error of type 2: SMMU, HHA, PA, HLLC, DDRC, L3 tag or L3 data."""

    validation_bits: ClassVar[Word] = ValidationBits("I")
    version: U8 = 0
    soc_id: Annotated[U8 | None, Valid(0)] = None
    socket_id: Annotated[U8 | None, Valid(1)] = None
    nimbus_id: Annotated[U8 | None, Valid(2)] = None
    """Die."""
    module_id: Annotated[U8 | None, Valid(3)] = None
    submodule_id: Annotated[U8 | None, Valid(4)] = None
    severity: Annotated[Severity | None, u8, Valid(5)] = None
    reserved: ClassVar[Word] = Reserved(1)
    fr: Annotated[U64 | None, Valid(6)] = None
    """ERR<n>FR; low word first, as all of these."""
    ctrl: Annotated[U64 | None, Valid(7)] = None
    """ERR<n>CTLR."""
    status: Annotated[U64 | None, Valid(8)] = None
    """ERR<n>STATUS."""
    address: Annotated[U64 | None, Valid(9)] = None
    """ERR<n>ADDR."""
    misc_0: Annotated[U64 | None, Valid(10)] = None
    """ERR<n>MISC0."""
    misc_1: Annotated[U64 | None, Valid(11)] = None
    """ERR<n>MISC1."""


class HisiliconPcieLocal(Section, size=152, guid="b2889fc9-e7d7-4f9d-a867-af42e98be772"):
    """HIP08 PCIe local error.  Bits 9 to 41 say which of the misc registers are valid; all are shown."""

    validation_bits: ClassVar[Word] = ValidationBits("Q")
    version: Annotated[U8 | None, Valid(0)] = None
    soc_id: Annotated[U8 | None, Valid(1)] = None
    socket_id: Annotated[U8 | None, Valid(2)] = None
    nimbus_id: Annotated[U8 | None, Valid(3)] = None
    """Die."""
    submodule_id: Annotated[U8 | None, Valid(4)] = None
    """0 AP, 1 TL, 2 MAC, 3 DL, 4 SDI."""
    core_id: Annotated[U8 | None, Valid(5)] = None
    port_id: Annotated[U8 | None, Valid(6)] = None
    severity: Annotated[Severity | None, u8, Valid(8)] = None
    error_type: Annotated[U16 | None, Valid(7)] = None
    reserved: ClassVar[Word] = Reserved(2)
    misc: Annotated[tuple[int, ...], array("I", 33)] = (0,) * 33
    """Registers."""


class HisiliconPcieDevice(Struct, size=8):
    """Which PCIe device (pcie_info)."""

    function: U8
    device: U8
    segment: U16
    bus: U8
    reserved: ClassVar[Word] = Reserved(3)


class HisiliconCommonHead(Struct, size=32):
    """What precedes the registers of the common section."""

    validation_bits: ClassVar[Word] = ValidationBits("I")
    version: U8 = 0
    soc_id: Annotated[U8 | None, Valid(0)] = None
    """0 Kunpeng 916, 1 Kunpeng 920, 2 Kunpeng 930."""
    socket_id: Annotated[U8 | None, Valid(1)] = None
    totem_id: Annotated[U8 | None, Valid(2)] = None
    nimbus_id: Annotated[U8 | None, Valid(3)] = None
    subsystem_id: Annotated[U8 | None, Valid(4)] = None
    module_id: Annotated[U8 | None, Valid(5)] = None
    submodule_id: Annotated[U8 | None, Valid(6)] = None
    core_id: Annotated[U8 | None, Valid(7)] = None
    port_id: Annotated[U8 | None, Valid(8)] = None
    error_type: Annotated[U16 | None, Valid(9)] = None
    pcie_device: Annotated[HisiliconPcieDevice | None, Valid(10)] = None
    """Which PCIe device."""
    severity: Annotated[Severity | None, u8, Valid(11)] = None
    reserved: ClassVar[Word] = Reserved(3)
    register_array_size: Annotated[U32 | None, Valid(12)] = None
    """Bytes of the registers."""


class HisiliconRegister(Struct, size=4):
    """A register."""

    value: U32


class _Registers(Many):
    """The registers, whose bytes the head tells."""

    def count(self, head: Mapping[str, Any]) -> int:
        return (head.get(self.counter) or 0) // 4


@dataclass(frozen=True)
class HisiliconCommon(FramedSection[HisiliconCommonHead], guid="c8b328a8-9917-4af6-9a13-2e08ab2e7586"):
    """An error of any unit of a HiSilicon SoC."""

    FRAME = c.Struct(
        "head" / Head(HisiliconCommonHead),
        "registers" / _Registers(HisiliconRegister, HisiliconCommonHead, "register_array_size"),
        "trailing" / Upto(),
    )

    registers: tuple[HisiliconRegister, ...] = ()
    """Registers of the unit."""
    trailing: bytes = b""
    """Bytes behind them."""
