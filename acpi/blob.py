"""The files of fw_cfg that hold a guest's ACPI tables (QEMU ``hw/arm/virt-acpi-build.c`` lays them out alike).

``etc/acpi/tables`` holds every table but the RSDP back to back; a pointer is the offset in the file that it points
into, until the linker/loader script is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from acpi.bert import SMALLEST_REGION, Bert, BertHeader
from acpi.description import FirmwareDescription
from acpi.dsdt import build_dsdt
from acpi.fadt import Fadt, FadtHeader
from acpi.gas import AccessSize, GenericAddress
from acpi.gtdt import Gtdt
from acpi.hest import GenericHardwareErrorSource, GenericHardwareErrorSourceV2, Hest, NotificationType
from acpi.image import build_hest, error_region, place_sources
from acpi.linking import (
    BOOT_ERRORS_FILE,
    ERRORS_ADDRESS_FILE,
    ERRORS_FILE,
    HEST_ADDRESS_FILE,
    RSDP_FILE,
    SCRIPT_FILE,
    TABLES_FILE,
)
from acpi.loader import ScriptBuilder, Zone
from acpi.machine import FirmwareError, check_gsiv
from acpi.madt import Madt
from acpi.sdei import Sdei
from acpi.spcr import Spcr
from acpi.table import Rsdp, TableHeader, Xsdt, checksum, open_table

_VIA_ERROR_DEVICE = frozenset({NotificationType.GSIV, NotificationType.GPIO_SIGNAL, NotificationType.SCI})
_CHECKSUM = TableHeader.at("checksum").offset
_SPCR_ACCESS = {8: AccessSize.BYTE, 16: AccessSize.WORD, 32: AccessSize.DWORD}


class Table(NamedTuple):
    """One table in the blob."""

    signature: str
    offset: int
    """Bytes from the start of the blob."""
    size: int


class Blob:
    """The tables and the script while they grow; :meth:`run` makes them."""

    def __init__(self, description: FirmwareDescription) -> None:
        self.d = description
        self.tables: list[Table] = []
        self.files: dict[str, bytes] = {}
        self._script, self._blob = ScriptBuilder(), bytearray()

    def run(self) -> None:
        """Fill ``tables`` and ``files``.  Raises FirmwareError saying what of the description is wrong."""
        d = self.d
        if not d.sources:
            raise FirmwareError("sources", "", "there is none")
        if d.write_back not in {None, "errors", "hest"}:
            raise FirmwareError("write_back", "", f"{d.write_back!r} is neither 'errors' nor 'hest'")
        try:
            errors = error_region(place_sources(d.sources, 0))
            hest = build_hest(d.sources, 0, d.words, d.revisions.hest)
        except ValidationError:
            raise
        except ValueError as error:
            raise FirmwareError("sources", "", str(error)) from None
        dsdt = self._append(
            build_dsdt(d.machine, self._gsivs(), d.words.header("DSDT", d.revisions.dsdt), osc=d.osc), "DSDT"
        )
        offsets = [self._append(table, "tables") for table in self._own(hest)]
        made = {t.signature for t in self.tables} | {"XSDT", "RSDT", "BERT"}
        for index, table in enumerate(d.extra):
            offsets.append(self._append(table, f"extra[{index}]"))
            if self.tables[-1].signature in made:
                raise FirmwareError(f"extra[{index}]", self.tables[-1].signature, "is made from the description")
        xsdt = self._append(Xsdt.build(offsets, d.words.header("XSDT", 1)), "XSDT")
        self._blob += bytes(-len(self._blob) % 8)
        self.files[ERRORS_FILE] = errors
        self._link(hest, dsdt, offsets)
        self.files[TABLES_FILE] = bytes(self._blob)
        self.files[RSDP_FILE] = Rsdp(oem_id=d.words.oem_id, xsdt_address=xsdt).encode()
        self.files[SCRIPT_FILE] = self._script.build()

    # -- tables ----------------------------------------------------------------------

    def _gsivs(self) -> tuple[int, ...]:
        """The interrupts by which the error device is told, each once."""
        device, found = self.d.machine.event_device, []
        for s in self.d.sources:
            if s.notification not in _VIA_ERROR_DEVICE:
                continue
            where = f"source {s.source_id}"
            if s.notification == NotificationType.GSIV and s.vector:
                check_gsiv("sources", where, s.vector)
                if self.d.machine.uart is not None and s.vector == self.d.machine.uart.gsiv:
                    raise FirmwareError("sources", where, f"GSIV {s.vector} is that of the UART")
                if device is not None and device.selector is not None and s.vector != device.gsiv:
                    raise FirmwareError(
                        "sources", where, f"GSIV {s.vector} is not that of the event device, {device.gsiv}"
                    )
                found.append(s.vector)
            elif device is None:
                raise FirmwareError("sources", where, f"{s.notification.plain} needs the machine's event device")
            else:
                found.append(device.gsiv)
        return tuple(dict.fromkeys(found))

    def _own(self, hest: Hest) -> Iterator[bytes]:
        """Every table that the XSDT points to, but for the description's extra ones."""
        d = self.d
        yield self._fadt()
        m = d.machine
        yield Madt(m.gic.controllers(m.mpidrs, m.pmu_gsiv), d.words.header("APIC", d.revisions.madt)).build()
        t = m.timers
        yield Gtdt.of(
            d.words.header("GTDT", d.revisions.gtdt), secure_el1_gsiv=t.secure_el1,
            non_secure_el1_gsiv=t.non_secure_el1, virtual_el1_gsiv=t.virtual_el1, el2_gsiv=t.el2,
        ).build()  # fmt: skip
        if d.spcr and m.uart is not None:
            bits = m.uart.access_bits
            address = GenericAddress(bit_width=bits, access_size=_SPCR_ACCESS[bits], address=m.uart.address)
            header = d.words.header("SPCR", d.revisions.spcr)
            yield Spcr.of(header, base_address=address, gsiv=m.uart.gsiv).build()
        yield hest.build()
        if d.boot_errors is not None:
            yield self._bert(d.boot_errors)
        if d.sdei or (d.sdei is None and any(s.notification == NotificationType.SDEI for s in d.sources)):
            yield Sdei.of(d.words.header("SDEI", Sdei.REVISION)).build()

    def _fadt(self) -> bytes:
        d = self.d
        if len(d.hypervisor.encode()) > 8:
            raise FirmwareError("hypervisor", "", f"{d.hypervisor!r} has more than 8 bytes")
        return Fadt.of(
            d.words.header("FACP", 6), psci_use_hvc=d.machine.conduit == "hvc",
            fadt_minor_version=d.revisions.fadt_minor, hypervisor_vendor_identity=d.hypervisor,
        ).build()  # fmt: skip

    def _bert(self, region: bytes) -> bytes:
        if len(region) < SMALLEST_REGION:
            raise FirmwareError("boot_errors", "", f"{len(region)} bytes, not {SMALLEST_REGION} or more")
        header = self.d.words.header("BERT", Bert.REVISION)
        return Bert.of(header, boot_error_region_length=len(region), boot_error_region=0).build()

    # -- blob and script ---------------------------------------------------------------

    def _append(self, table: bytes, what: str) -> int:
        try:
            header, _ = open_table(table)
        except ValueError as error:
            raise FirmwareError(what, "", str(error)) from None
        if header.length != len(table) or checksum(table):
            raise FirmwareError(what, header.signature, "the table is not sealed: length or checksum is wrong")
        self._blob += bytes(-len(self._blob) % 8)
        offset = len(self._blob)
        self._blob += table
        self._blob[offset + _CHECKSUM] = 0
        self.tables.append(Table(header.signature, offset, len(table)))
        return offset

    def _link(self, hest: Hest, dsdt: int, offsets: Sequence[int]) -> None:
        d, script = self.d, self._script
        script.allocate(RSDP_FILE, Rsdp.SIZE, 16, Zone.FSEG)
        script.allocate(ERRORS_FILE, len(self.files[ERRORS_FILE]), 8)
        if d.boot_errors is not None:
            self.files[BOOT_ERRORS_FILE] = d.boot_errors
            script.allocate(BOOT_ERRORS_FILE, len(d.boot_errors), 8)
        script.allocate(TABLES_FILE, len(self._blob), 64)
        for t in self.tables:
            if t.signature == "FACP":
                self._pointer(t.offset + FadtHeader.at("x_dsdt").offset, dsdt, TABLES_FILE)
            elif t.signature == "HEST":
                self._hest(t.offset, hest)
            elif t.signature == "BERT":
                self._pointer(t.offset + BertHeader.at("boot_error_region").offset, 0, BOOT_ERRORS_FILE)
            elif t.signature == "XSDT":
                for index, offset in enumerate(offsets):
                    self._pointer(t.offset + TableHeader.SIZE + 8 * index, offset, TABLES_FILE)
            script.add_checksum(TABLES_FILE, t.offset + _CHECKSUM, t.offset, t.size)
            if t.signature == "HEST" and d.write_back == "hest":
                self._write_back(HEST_ADDRESS_FILE, TABLES_FILE, t.offset)
        script.add_checksum(RSDP_FILE, Rsdp.at("checksum").offset, 0, 20)
        script.add_pointer(RSDP_FILE, Rsdp.at("xsdt_address").offset, TABLES_FILE)
        script.add_checksum(RSDP_FILE, Rsdp.at("extended_checksum").offset, 0, Rsdp.SIZE)

    def _hest(self, start: int, hest: Hest) -> None:
        for index in range(len(hest.sources)):
            self._script.add_pointer(ERRORS_FILE, 8 * index, ERRORS_FILE)
        if self.d.write_back == "errors":
            self._write_back(ERRORS_ADDRESS_FILE, ERRORS_FILE, 0)
        status = GenericHardwareErrorSource.at("error_status_address.address").offset
        ack = GenericHardwareErrorSourceV2.at("read_ack_register.address").offset
        for index, source in enumerate(hest.generic_sources):
            at = start + hest.offset(index)
            self._pointer(at + status, source.error_status_address.address, ERRORS_FILE)
            if isinstance(source, GenericHardwareErrorSourceV2):
                self._pointer(at + ack, source.read_ack_register.address, ERRORS_FILE)

    def _pointer(self, offset: int, value: int, pointee: str) -> None:
        self._blob[offset : offset + 8] = value.to_bytes(8, "little")
        self._script.add_pointer(TABLES_FILE, offset, pointee)

    def _write_back(self, writable: str, pointee: str, offset: int) -> None:
        self.files[writable] = bytes(8)
        self._script.write_pointer(writable, pointee, offset)


__all__ = ["Blob", "Table"]
