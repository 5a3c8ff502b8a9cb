"""The tables that a booted guest has, in its memory and in sysfs, against those that were built."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from acpi.fadt import Fadt, FadtHeader
from acpi.firmware import Firmware
from acpi.hest import Hest
from acpi.image import Image, find_sources, find_tables
from acpi.table import Rsdp, Xsdt
from vmm_ras.lab import kernel_log
from vmm_ras.lab.console import Console
from vmm_ras.lab.guest_firmware import link
from vmm_ras.lab.qemu import Qemu
from vmm_ras.lab.report import Report

_DUMP = "for t in * data/*; do [ -f $t ] && echo TABLE $t && base64 $t; done"


def compare(qemu: Qemu, firmware: Firmware, rsdp: int, report: Report) -> Image:
    """Assert that every table is the one that was built, linked for where the firmware put it.

    Returns what lies in guest memory as an image: a model guest can boot from it.  Raises Failure.
    """
    ram = find_tables(qemu.ram.read, rsdp)
    hest = Hest.parse(ram["HEST"][1])
    errors = hest.generic_sources[0].error_status_address.address
    boot = int.from_bytes(ram["BERT"][1][-8:], "little")
    built = firmware.image_of(link(firmware, errors, boot))
    compare_sysfs(qemu.console, firmware, built, report)
    fadt = Fadt.parse(ram["FACP"][1]).head
    dsdt = built.region("dsdt")[1]
    address = fadt.x_dsdt or fadt.dsdt
    report.equal(qemu.ram.read(address, len(dsdt)), dsdt, "FACP points to the DSDT", f"{address:#x}")
    region = built.region("hardware_errors")[1]
    report.equal(qemu.ram.read(errors, len(region)), region, "the error region is what we built", f"at {errors:#x}")
    xsdt = Rsdp.decode(qemu.ram.read(rsdp, Rsdp.SIZE)).xsdt_address
    addresses = [gpa for gpa, _ in ram.values()]
    regions = [
        ("rsdp", rsdp, qemu.ram.read(rsdp, Rsdp.SIZE)),
        ("xsdt", xsdt, qemu.ram.read(xsdt, len(Xsdt.build(addresses)))),
    ]
    regions += [(name, gpa, data) for name, (gpa, data) in ram.items()]
    regions.append(("hardware_errors", errors, region))
    image = Image(tuple(regions), rsdp, find_sources(qemu.ram.read, ram["HEST"][1]), hest)
    report.equal(image.sources, built.sources, "the sources lie where we think", f"{len(built.sources)} sources")
    return image


def compare_sysfs(
    console: Console, firmware: Firmware, built: Image, report: Report, instead: Mapping[str, bytes] | None = None
) -> None:
    """Assert that Linux shows the tables that were built; ``instead``: signature to what the initrd gave.

    Raises Failure.
    """
    shown = kernel_log.tables(console.run(f"cd /sys/firmware/acpi/tables; {_DUMP}; cd /"))
    names = {t.signature for t in firmware.tables} - {"XSDT"} | {"data/BERT"}
    report.equal(set(shown), names, "the guest has our tables and no others", " ".join(sorted(shown)))
    for name, gpa, data in built.regions:
        signature = name.upper()
        if signature in shown:
            found, what = base64.b64decode(shown[signature]), f"{signature} is what we built"
            expected = data if instead is None else instead.get(signature, data)
            if expected is not data:
                what = f"{signature} is what the initrd gave"
            elif signature == "FACP":
                found, expected, what = _own(found), _own(expected), f"{what}, but for the DSDT's address"
            report.equal(found, expected, what, f"{len(found)} bytes")
        elif name == "boot_errors":
            found = base64.b64decode(shown["data/BERT"])
            report.equal(found[:4], bytes(4), "Linux cleared the block status of the boot error region", f"at {gpa:#x}")
            report.equal(found[4:], data[4:], "the boot error region is what we built", f"{len(found)} bytes")


def _own(fadt: bytes) -> bytes:
    """The table without what the firmware owns: the DSDT's addresses, and the checksum with them."""
    out = bytearray(fadt)
    out[9] = 0
    for name in ("dsdt", "x_dsdt"):
        field = FadtHeader.at(name)
        out[field.offset : field.offset + field.size] = bytes(field.size)
    return bytes(out)
