"""The tables that the lab's guest boots with, and those that its initrd holds instead."""

from __future__ import annotations

import gzip

import pytest

from acpi.finding import Level
from acpi.hest import NotificationType
from acpi.linking import BOOT_ERRORS_FILE, ERRORS_FILE
from acpi.lint import lint
from acpi.loader import LoaderScript, WritePointer
from acpi.table import TableHeader, checksum
from acpi.tables import parse_table
from tests.lab.test_lab_cpio import entries
from vmm_ras.lab import initrd
from vmm_ras.lab.guest_firmware import UPGRADABLE, files_of, guest_firmware, link, upgrades

ERRORS, BOOT_ERRORS = 0x5C41_0000, 0x5C40_0000


@pytest.mark.parametrize("gic", [2, 3])
def test_the_initrds_tables_are_the_firmwares_but_for_revision_and_one_source(gic):
    firmware = guest_firmware(gic)
    built = firmware.image_of(link(firmware, ERRORS, BOOT_ERRORS))
    found = upgrades(gic, ERRORS, BOOT_ERRORS)
    assert sorted(found) == sorted(f"{name.lower()}.aml" for name in UPGRADABLE)
    for name, data in found.items():
        _, theirs = built.region(name.removesuffix(".aml"))
        assert TableHeader.decode(data).oem_revision == 2
        assert checksum(data) == 0
        ours = bytearray(data)
        ours[9], ours[24] = theirs[9], 1
        if name == "hest.aml":
            assert parse_table(data).generic_sources[3].notification.type == NotificationType.POLLED
            at = 40 + 3 * 92 + 32
            assert ours[:at] == theirs[:at]
            assert ours[at + 28 :] == theirs[at + 28 :]
        else:
            assert ours == theirs


def test_qemu_gets_every_file_that_the_script_names_and_edk2_may_write_the_one_it_writes():
    firmware = guest_firmware(3)
    files = files_of(firmware)
    script = LoaderScript.parse(files["etc/table-loader"])
    (written,) = [c for c in script.commands if isinstance(c, WritePointer)]
    assert (written.pointer_file, written.pointer_offset, written.pointee_file) == ("etc/vmcoreinfo", 8, ERRORS_FILE)
    assert written.pointer_file not in files
    assert {ERRORS_FILE, BOOT_ERRORS_FILE, "etc/acpi/rsdp", "etc/acpi/tables", "etc/table-loader"} == set(files)


def test_nothing_in_them_is_wrong():
    firmware = guest_firmware(3)
    image = firmware.image()
    tables = [data for name, _, data in image.regions if data[4:8] == len(data).to_bytes(4, "little")]
    assert len(tables) == len(firmware.tables)
    assert [str(f) for f in lint(*tables) if f.level == Level.ERROR] == []


def test_tables_come_before_everything_else():
    root = gzip.compress(b"root")
    archive = initrd.with_tables({"hest.aml": b"HEST-bytes", "bert.aml": b"B"}, root)
    assert archive.endswith(root)
    found = {name: data for _, name, data in entries(archive)}
    assert list(found) == [
        "kernel", "kernel/firmware", "kernel/firmware/acpi",
        "kernel/firmware/acpi/hest.aml", "kernel/firmware/acpi/bert.aml", "TRAILER!!!",
    ]  # fmt: skip
    assert found["kernel/firmware/acpi/hest.aml"] == b"HEST-bytes"
