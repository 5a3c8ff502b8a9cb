"""JaguarMicro sections, by unit (rasdaemon non-standard-jaguarmicro.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import construct as c

from cper.framed import FramedSection, Head, Many, Upto
from cper.wire import U8, U16, U32, U64, Bits, Reserved, Struct, Valid, ValidationBits, Word


class JaguarMicroCommon(Struct):
    """What every one begins with.  Not a structure by itself."""

    validation_bits: ClassVar[Word] = ValidationBits("I")
    registers_valid: Annotated[bool, Bits("validation_bits", 11, 12)] = False
    """Whether further registers follow."""
    version: Annotated[U8 | None, Valid(0)] = None
    soc_id: Annotated[U8 | None, Valid(1)] = None
    subsystem_id: Annotated[U8 | None, Valid(2)] = None
    module_id: Annotated[U8 | None, Valid(3)] = None
    submodule_id: Annotated[U8 | None, Valid(4)] = None
    device_id: Annotated[U8 | None, Valid(5)] = None
    error_type: Annotated[U16 | None, Valid(6)] = None
    error_severity: Annotated[U8 | None, Valid(7)] = None
    reserved: ClassVar[Word] = Reserved(3)


class JaguarMicroPorHead(JaguarMicroCommon, size=80):
    """RAS registers of a power-on reset domain (type 0)."""

    lock_control: U32 = 0
    lock_function: U32 = 0
    cfg_ram_id: U32 = 0
    err_fr_low32: U32 = 0
    err_fr_high32: U32 = 0
    err_ctlr_low32: U32 = 0
    ecc_status_low32: U32 = 0
    ecc_addr_low32: U32 = 0
    ecc_addr_high32: U32 = 0
    ecc_misc0_low32: U32 = 0
    ecc_misc0_high32: U32 = 0
    ecc_misc1_low32: U32 = 0
    ecc_misc1_high32: U32 = 0
    ecc_misc2_low32: U32 = 0
    ecc_misc2_high32: U32 = 0
    register_count: U32 = 0
    """Further registers (reg_array_size)."""


class JaguarMicroSmmuHead(JaguarMicroCommon, size=40):
    """An SMMU (type 1)."""

    smmu_csr: U32 = 0
    errfr: U32 = 0
    errctlr: U32 = 0
    errstatus: U32 = 0
    errgen: U32 = 0
    register_count: U32 = 0
    """Further registers (reg_array_size)."""


class JaguarMicroHacSramHead(JaguarMicroCommon, size=36):
    """SRAM of the HAC (type 2)."""

    ecc_1bit_int_low: U32 = 0
    ecc_1bit_int_high: U32 = 0
    ecc_2bit_int_low: U32 = 0
    ecc_2bit_int_high: U32 = 0
    register_count: U32 = 0
    """Further registers (reg_array_size)."""


class JaguarMicroCmnHead(JaguarMicroCommon, size=132):
    """The mesh (type 5)."""

    cfgm_mxp_0: U64 = 0
    cfgm_hnf_0: U64 = 0
    cfgm_hni_0: U64 = 0
    cfgm_sbsx_0: U64 = 0
    errfr_ns: U64 = 0
    errctlrr_ns: U64 = 0
    errstatusr_ns: U64 = 0
    erraddrr_ns: U64 = 0
    errmiscr_ns: U64 = 0
    errfr: U64 = 0
    errctlr: U64 = 0
    errstatus: U64 = 0
    erraddr: U64 = 0
    errmisc: U64 = 0
    register_count: U32 = 0
    """Further registers (reg_array_size)."""


class JaguarMicroGicHead(JaguarMicroCommon, size=84):
    """The interrupt controller (type 6)."""

    record_id: U64 = 0
    gict_err_fr: U64 = 0
    gict_err_ctlr: U64 = 0
    gict_err_status: U64 = 0
    gict_err_addr: U64 = 0
    gict_err_misc0: U64 = 0
    gict_err_misc1: U64 = 0
    gict_errgsr: U64 = 0
    register_count: U32 = 0
    """Further registers (reg_array_size)."""


class JaguarMicroRegister(Struct, size=4):
    """A further register."""

    value: U32


def _frame(head: type[Struct]) -> c.Construct:
    registers = Many(JaguarMicroRegister, head, "register_count", valid="registers_valid")
    return c.Struct("head" / Head(head), "registers" / registers, "trailing" / Upto())


@dataclass(frozen=True)
class _Section(FramedSection[JaguarMicroCommon]):
    """Base of the sections."""

    registers: tuple[JaguarMicroRegister, ...] = ()
    """Further registers."""
    trailing: bytes = b""
    """Bytes behind them."""


@dataclass(frozen=True)
class JaguarMicroPor(_Section, guid="82d78ba3-fa14-407a-ba0e-f3ba8170013c"):
    """RAS registers of a power-on reset domain (type 0)."""

    FRAME = _frame(JaguarMicroPorHead)


@dataclass(frozen=True)
class JaguarMicroSmmu(_Section, guid="f9723053-2558-49b1-b58a-1c1a82492a62"):
    """An SMMU (type 1)."""

    FRAME = _frame(JaguarMicroSmmuHead)


@dataclass(frozen=True)
class JaguarMicroHacSram(_Section, guid="2d31de54-3037-4f24-a283-f69ca1ec0b9a"):
    """SRAM of the HAC (type 2)."""

    FRAME = _frame(JaguarMicroHacSramHead)


@dataclass(frozen=True)
class JaguarMicroCmn(_Section, guid="dac80d69-0a72-4eba-8114-148ee344af06"):
    """The mesh (type 5)."""

    FRAME = _frame(JaguarMicroCmnHead)


@dataclass(frozen=True)
class JaguarMicroGic(_Section, guid="746f06fe-405e-451f-8d09-02e802ed984a"):
    """The interrupt controller (type 6)."""

    FRAME = _frame(JaguarMicroGicHead)
