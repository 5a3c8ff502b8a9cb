"""Alibaba Yitian section (rasdaemon non-standard-yitian.h): ECC registers of a DDR controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import construct as c

from cper.framed import Beginning, FramedSection, Head, Upto
from cper.wire import U8, U16, U32, Reserved, Struct, Word

DDR = 0x50
"""Type of a payload with DDR registers."""


class YitianHead(Struct, size=4):
    """What every payload begins with."""

    type: U8
    """0x50: DDR."""
    subtype: U8 = 0
    instance: U16 = 0


class YitianDdr(Struct, size=124):
    """Registers of a DDR controller."""

    ecccfg0: U32 = 0
    ecccfg1: U32 = 0
    eccstat: U32 = 0
    eccerrcnt: U32 = 0
    ecccaddr0: U32 = 0
    ecccaddr1: U32 = 0
    ecccsyn0: U32 = 0
    ecccsyn1: U32 = 0
    ecccsyn2: U32 = 0
    eccuaddr0: U32 = 0
    eccuaddr1: U32 = 0
    eccusyn0: U32 = 0
    eccusyn1: U32 = 0
    eccusyn2: U32 = 0
    eccbitmask0: U32 = 0
    eccbitmask1: U32 = 0
    eccbitmask2: U32 = 0
    adveccstat: U32 = 0
    eccapstat: U32 = 0
    ecccdata0: U32 = 0
    ecccdata1: U32 = 0
    eccudata0: U32 = 0
    eccudata1: U32 = 0
    eccsymbol: U32 = 0
    eccerrcntctl: U32 = 0
    eccerrcntstat: U32 = 0
    eccerrcnt0: U32 = 0
    eccerrcnt1: U32 = 0
    reserved: ClassVar[Word] = Reserved(12)


class _Ddr(Beginning):
    """The registers, where the type says so."""

    def __init__(self) -> None:
        super().__init__(YitianDdr, YitianHead)

    def there(self, size: int, head: Mapping[str, Any]) -> bool:
        return head["type"] == DDR and super().there(size, head)


@dataclass(frozen=True)
class Yitian(FramedSection[YitianHead], guid="a6980811-16ea-4e4d-b936-fb00a23ff29c"):
    """An error of a Yitian SoC."""

    FRAME = c.Struct("head" / Head(YitianHead), "ddr" / _Ddr(), "data" / Upto())

    ddr: tuple[YitianDdr, ...] = ()
    """Registers of a DDR controller."""
    data: bytes = b""
    """Another payload, or what lies behind."""
