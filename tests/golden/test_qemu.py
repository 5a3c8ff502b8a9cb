"""QEMU's own tables, error regions and status block against ours, and read by ours."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from acpi.ghes import StatusBlock
from acpi.hest import Hest, NotificationType
from acpi.image import find_sources, find_tables
from acpi.presets import PRESETS
from acpi.table import Rsdp, TableHeader, checksum
from cper.common import Severity
from cper.memory import PlatformMemory
from vmm_ras.record import QEMU, memory_block

QEMU_DIR = Path(__file__).parents[2] / "fixtures" / "qemu"
ERRORS = 0x5C41_0000
"""Where the captured guests had their error region."""
HESTS = {
    "HEST-qemu7.2": "qemu-7.2",
    "HEST-qemu10.0": "qemu-10.0",
    "HEST-qemu11.1": "qemu-11.1",
    "HEST-qemu11.1-virt-10.0": "qemu-10.0",
    "HEST-qemu11.1-virt-10.1": "qemu-10.0",
}


def captured(name):
    """The bytes of a fixture."""
    return (QEMU_DIR / f"{name}.bin").read_bytes()


@pytest.mark.parametrize(("name", "preset"), HESTS.items())
def test_a_preset_is_qemus_table_byte_for_byte(name, preset):
    _, ours = PRESETS[preset].place(0x4000_0000, ERRORS).region("hest")
    assert ours == captured(name)


@pytest.mark.parametrize(("name", "preset"), HESTS.items())
def test_elsewhere_only_addresses_and_checksum_differ(name, preset):
    _, ours = PRESETS[preset].place(0x4000_0000, 0x7_0000_0000).region("hest")
    theirs = captured(name)
    assert len(ours) == len(theirs)
    count = len(Hest.parse(theirs).sources)
    moved = {9} | {40 + 92 * i + at + j for i in range(count) for at in (24, 68) for j in range(8)}
    assert {i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b} <= moved


@pytest.mark.parametrize("name", HESTS)
def test_qemus_hest_loses_nothing(name):
    raw = captured(name)
    table = Hest.parse(raw)
    assert table.build() == raw
    assert checksum(raw) == 0
    assert (table.header.oem_id, table.header.oem_table_id, table.header.creator_id) == ("BOCHS ", "BXPC    ", "BXPC")
    sea = table.source(0)
    assert sea.notification.type == NotificationType.SEA
    assert sea.read_ack_preserve == 0xFFFF_FFFF_FFFF_FFFE
    assert (sea.enabled, sea.related_source_id, sea.error_status_block_length) == (1, 0xFFFF, 1024)
    if len(table.sources) == 2:
        assert table.source(1).notification.type == NotificationType.GPIO_SIGNAL


@pytest.mark.parametrize("version", ["7.2", "10.0", "11.1", "11.1-virt-10.0", "11.1-virt-10.1"])
def test_the_error_region_at_boot_is_qemus(version):
    theirs = captured(f"hardware_errors-qemu{version}")
    _, ours = PRESETS[HESTS[f"HEST-qemu{version}"]].place(0x4000_0000, ERRORS).region("hardware_errors")
    assert theirs[: len(ours)] == ours
    assert not any(theirs[len(ours) :])
    assert len(theirs) - len(ours) == 16


@pytest.mark.parametrize(("version", "preset"), [("7.2", "qemu-7.2"), ("11.1", "qemu-11.1")])
def test_the_error_region_in_fw_cfg_is_qemus(version, preset):
    """Before the loader script runs its pointers count from 0."""
    _, ours = PRESETS[preset].place(0x4000_0000, 0).region("hardware_errors")
    assert ours == captured(f"fwcfg-{version}-etc_hardware_errors")


def test_a_memory_block_in_qemus_style_is_qemus():
    """After the SEA: the guest has cleared the block status and acknowledged; everything else is as QEMU wrote it."""
    region = captured("hardware_errors-REAL-qemu7.2-kvm-after-sea")
    block, ack = struct.unpack_from("<QQ", region)
    assert block & 0xFFF == 16
    assert ack == 1
    theirs = region[16:]
    gpa = StatusBlock.decode(b"\x01" + theirs[1:]).entries[0].section().physical_address
    assert gpa == 0x5713_D000
    ours = memory_block([(gpa, 4096)], severity=Severity.RECOVERABLE, style=QEMU)
    assert len(ours) == 172
    assert ours[:4] == (1).to_bytes(4, "little")  # uncorrectable; the guest cleared it
    assert theirs[:4] == bytes(4)
    assert ours[4:] == theirs[4:172]
    assert not any(theirs[172:])


def test_qemus_block_is_read_as_what_it_says():
    region = captured("hardware_errors-REAL-qemu7.2-kvm-after-sea")
    block = StatusBlock.decode(region[16:])
    assert block.encode() == region[16 : 16 + 172]
    assert (block.header.severity, block.header.entry_count, block.header.data_length) == (Severity.RECOVERABLE, 0, 152)
    entry = block.entries[0]
    assert (entry.header.revision, entry.header.severity, entry.header.error_data_length) == (0x300, 0, 80)
    assert entry.section() == PlatformMemory(physical_address=0x5713_D000, error_type="unknown")


# -- all of QEMU's tables, placed by its own script -----------------------------------------


def run_script(tag, where):
    """Do what firmware does with a linker/loader script; written here with plain struct, no code of ours."""
    files = {}
    for path in QEMU_DIR.glob(f"fwcfg-{tag}-*.bin"):
        files[path.stem.removeprefix(f"fwcfg-{tag}-").replace("_", "/", 1)] = bytearray(path.read_bytes())
    files = {name.replace("etc/acpi_", "etc/acpi/", 1): data for name, data in files.items()}
    script = files.pop("etc/table-loader")
    text = lambda raw: raw.split(b"\0")[0].decode()  # noqa: E731
    for at in range(0, len(script), 128):
        command = bytes(script[at : at + 128])
        kind = struct.unpack_from("<I", command)[0]
        if kind == 2:
            name, source = text(command[4:60]), text(command[60:116])
            offset, size = struct.unpack_from("<IB", command, 116)
            old = int.from_bytes(files[name][offset : offset + size], "little")
            files[name][offset : offset + size] = (old + where[source]).to_bytes(size, "little")
        elif kind == 3:
            name = text(command[4:60])
            result, start, length = struct.unpack_from("<III", command, 60)
            files[name][result] = 0
            files[name][result] = -sum(files[name][start : start + length]) & 0xFF
    return files


def memory_of(files, where):
    """``read`` over the placed files."""

    def read(gpa, size):
        for name, base in where.items():
            if base <= gpa <= gpa + size <= base + len(files[name]):
                return bytes(files[name][gpa - base : gpa - base + size])
        raise AssertionError(f"{size} bytes at {gpa:#x}")

    return read


WHERE = {"etc/acpi/rsdp": 0x5C00_0000, "etc/acpi/tables": 0x5C40_0000, "etc/hardware_errors": ERRORS}


@pytest.mark.parametrize(("tag", "hest"), [("7.2", "HEST-qemu7.2"), ("11.1", "HEST-qemu11.1")])
def test_our_walk_finds_every_table_that_qemu_placed(tag, hest):
    files = run_script(tag, WHERE)
    read = memory_of(files, WHERE)
    found = find_tables(read, WHERE["etc/acpi/rsdp"])
    assert {"FACP", "APIC", "GTDT", "HEST", "MCFG", "SPCR"} <= set(found)
    assert found["HEST"][1] == captured(hest)
    sources = find_sources(read, found["HEST"][1])
    count = len(sources)
    assert [s.register for s in sources] == [ERRORS + 8 * i for i in range(count)]
    assert [s.block for s in sources] == [ERRORS + 16 * count + 0x400 * i for i in range(count)]
    assert [s.ack for s in sources] == [ERRORS + 8 * count + 8 * i for i in range(count)]
    for signature, (_, table) in found.items():
        header = TableHeader.decode(table)
        assert (header.signature, header.length) == (signature, len(table))
        assert (header.oem_id, header.oem_table_id, header.creator_id) == ("BOCHS ", "BXPC    ", "BXPC")
        assert (header.oem_revision, header.creator_revision) == (1, 1)
        assert checksum(table) == 0


@pytest.mark.parametrize("tag", ["7.2", "7.2-virt4.0", "11.1"])
def test_qemus_rsdp_is_read(tag):
    where = dict(WHERE)
    files = run_script(tag, where)
    raw = bytes(files["etc/acpi/rsdp"])
    rsdp = Rsdp.decode(raw)
    assert (rsdp.signature, rsdp.oem_id, rsdp.revision, rsdp.length) == ("RSD PTR ", "BOCHS ", 2, 36)
    assert rsdp.encode() == raw
    assert rsdp.sealed().encode() == raw
    at = rsdp.xsdt_address - WHERE["etc/acpi/tables"]
    assert bytes(files["etc/acpi/tables"][at : at + 4]) == b"XSDT"
