"""Fixed ACPI Description Table, signature ``FACP`` (ACPI 6.5, 5.2.9), of a hardware-reduced Arm machine."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from acpi.frame import FixedTable, TableHead
from acpi.gas import AccessSize, GenericAddress
from acpi.table import TableHeader, open_table, seal
from cper.wire import U8, U16, U32, U64, Bits, Reserved, Word, text

_NONE = GenericAddress(bit_width=0, access_size=AccessSize.UNDEFINED)


class FadtHeader(TableHead, size=276):
    """The whole table, revision 6.  What only fixed ACPI hardware has is 0 in what we build."""

    firmware_ctrl: U32 = 0
    """Address of the FACS below 4 GiB; a hardware-reduced machine needs none."""
    dsdt: U32 = 0
    """Address of the DSDT below 4 GiB; 0 where ``x_dsdt`` holds it."""
    int_model: U8 = 0
    preferred_pm_profile: U8 = 0
    sci_int: U16 = 0
    smi_cmd: U32 = 0
    acpi_enable: U8 = 0
    acpi_disable: U8 = 0
    s4bios_req: U8 = 0
    pstate_cnt: U8 = 0
    pm1a_evt_blk: U32 = 0
    pm1b_evt_blk: U32 = 0
    pm1a_cnt_blk: U32 = 0
    pm1b_cnt_blk: U32 = 0
    pm2_cnt_blk: U32 = 0
    pm_tmr_blk: U32 = 0
    gpe0_blk: U32 = 0
    gpe1_blk: U32 = 0
    pm1_evt_len: U8 = 0
    pm1_cnt_len: U8 = 0
    pm2_cnt_len: U8 = 0
    pm_tmr_len: U8 = 0
    gpe0_blk_len: U8 = 0
    gpe1_blk_len: U8 = 0
    gpe1_base: U8 = 0
    cst_cnt: U8 = 0
    p_lvl2_lat: U16 = 0
    p_lvl3_lat: U16 = 0
    flush_size: U16 = 0
    flush_stride: U16 = 0
    duty_offset: U8 = 0
    duty_width: U8 = 0
    day_alrm: U8 = 0
    mon_alrm: U8 = 0
    century: U8 = 0
    iapc_boot_arch: U16 = 0
    reserved: ClassVar[Word] = Reserved(1)
    flags: U32 = 1 << 20
    """Bit 20: HW_REDUCED_ACPI."""
    reset_reg: GenericAddress = _NONE
    reset_value: U8 = 0
    arm_boot_arch: ClassVar[Word] = Word("H")
    psci_compliant: Annotated[bool, Bits("arm_boot_arch", 0, 1)] = True
    psci_use_hvc: Annotated[bool, Bits("arm_boot_arch", 1, 2)] = True
    """The conduit of PSCI, and of SDEI: HVC; else SMC."""
    fadt_minor_version: U8 = 3
    x_firmware_ctrl: U64 = 0
    x_dsdt: U64 = 0
    """Address of the DSDT."""
    x_pm1a_evt_blk: GenericAddress = _NONE
    x_pm1b_evt_blk: GenericAddress = _NONE
    x_pm1a_cnt_blk: GenericAddress = _NONE
    x_pm1b_cnt_blk: GenericAddress = _NONE
    x_pm2_cnt_blk: GenericAddress = _NONE
    x_pm_tmr_blk: GenericAddress = _NONE
    x_gpe0_blk: GenericAddress = _NONE
    x_gpe1_blk: GenericAddress = _NONE
    sleep_control_reg: GenericAddress = _NONE
    sleep_status_reg: GenericAddress = _NONE
    hypervisor_vendor_identity: Annotated[str, text(8)] = ""
    """Who the hypervisor is; empty: not said."""


class Fadt(FixedTable[FadtHeader]):
    """Fixed ACPI Description Table (5.2.9); an older revision is shorter, and the fields it lacks read as 0."""

    SIGNATURE = "FACP"
    REVISION = 6
    HEAD = FadtHeader

    def build(self) -> bytes:
        """The table's bytes with the checksum, as long as the header says where it was read from an older table."""
        size = self.header.length if self.header.length else FadtHeader.SIZE
        return seal(self.header, (self.head.encode() + self.trailing)[TableHeader.SIZE : size])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a table.  Raises DecodeError (signature, length), TruncatedError."""
        header, body = open_table(data, cls.SIGNATURE, structure=cls.__name__)
        whole = (data[: TableHeader.SIZE] + body).ljust(FadtHeader.SIZE, b"\0")
        return cls(FadtHeader.decode(whole), data[FadtHeader.SIZE : header.length])


__all__ = ["Fadt", "FadtHeader"]
