"""A guest's firmware from one description: what it holds, where it may lie, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from acpi.bert import Bert
from acpi.fadt import Fadt
from acpi.firmware import FirmwareDescription, FirmwareError, build
from acpi.firmware_presets import ERROR_GSIV, FIRMWARE_PRESETS, MIB, describe, virt_machine, with_sources
from acpi.hest import Hest, NotificationType
from acpi.image import SourceDescription, TableWords, find_sources, find_tables
from acpi.linking import BOOT_ERRORS_FILE, ERRORS_FILE, RSDP_FILE, TABLES_FILE
from acpi.machine import EventDevice, GicV2, GicV3, Machine, MsiFrame, Range, Timers, Uart
from acpi.madt import GicCpuInterface, GicRedistributor, Madt
from acpi.table import TableHeader, checksum, seal
from tests.bench import acpi as bench
from vmm_ras.guests.model import ModelGuest
from vmm_ras.profiles import PROFILES

SEA = SourceDescription(0, NotificationType.SEA)
GPIO = SourceDescription(1, NotificationType.GPIO_SIGNAL)
RAM = 0x4000_0000


def memory(image):
    """``read`` over an image."""

    def read(gpa, size):
        for _, at, data in image.regions:
            if at <= gpa and gpa + size <= at + len(data):
                return data[gpa - at : gpa - at + size]
        raise AssertionError(f"{gpa:#x} is outside")

    return read


@pytest.mark.parametrize("name", FIRMWARE_PRESETS)
@pytest.mark.parametrize("vcpus", [1, 3])
def test_every_preset_is_whole(name, vcpus):
    firmware = build(describe(name, memory=64 * MIB, vcpus=vcpus))
    image = firmware.image()
    found = find_tables(memory(image), image.rsdp)
    assert {"FACP", "APIC", "GTDT", "SPCR", "HEST"} <= set(found)
    assert find_sources(memory(image), found["HEST"][1]) == image.sources
    assert [s.source_id for s in image.sources] == [s.source_id for s in firmware.description.sources]
    assert Fadt.parse(found["FACP"][1]).head.x_dsdt == image.region("dsdt")[0]
    assert not checksum(image.region("dsdt")[1])
    cpus = [c for c in Madt.parse(found["APIC"][1]).controllers if isinstance(c, GicCpuInterface)]
    assert len(cpus) == vcpus
    for _, gpa, data in image.regions:
        assert gpa >= RAM
        assert gpa + len(data) <= RAM + 64 * MIB


def test_a_model_guest_boots_from_it():
    image = build(describe("minimal-vmm")).image()
    guest = ModelGuest(image, PROFILES["linux"], sdei=False)
    assert [s.notification for s in guest.os.sources] == [
        NotificationType.SEA, NotificationType.GSIV, NotificationType.POLLED,
    ]  # fmt: skip


def test_an_image_and_the_linked_files_are_the_same():
    firmware = build(describe("minimal-vmm"))
    at = firmware.place()
    assert firmware.image() == firmware.image_of(firmware.link(at))
    elsewhere = firmware.image(tables=RAM, errors=RAM + 0x10_0000)
    assert elsewhere.rsdp == RAM
    assert elsewhere.region("hardware_errors")[0] == RAM + 0x10_0000
    assert elsewhere.sources[0].register == RAM + 0x10_0000


def test_one_sea_source_per_vcpu():
    sources = describe("sea-per-vcpu", vcpus=5).sources
    assert [s.notification for s in sources] == [NotificationType.SEA] * 5 + [NotificationType.POLLED]
    assert len({s.source_id for s in sources}) == 6


def test_no_such_preset():
    with pytest.raises(FirmwareError, match=r"is none of qemu-7\.2"):
        describe("qemu")


def test_many_sources_are_built_and_placed():
    for _ in range(2):
        image, taken = bench.firmware()
        if sum(taken) < 4:
            break
    assert sum(taken) < 4, taken  # `make bench` prints what it takes where nothing else runs
    assert len(image.sources) == bench.COUNT
    assert image.sources[9_999].block == image.region("hardware_errors")[0] + 16 * 10_000 + 1024 * 9_999


class TestTables:
    def test_sdei_comes_with_an_sdei_source(self):
        sdei = SourceDescription(1, NotificationType.SDEI, vector=0x324)
        base = describe("minimal-vmm")
        for description, there in (
            (base, False),
            (with_sources(base, SEA, sdei), True),
            (replace(base, sdei=True), True),
            (replace(with_sources(base, SEA, sdei), sdei=False), False),
        ):
            assert ("SDEI" in [t.signature for t in build(description).tables]) is there

    def test_a_boot_error_region_has_a_file_and_a_pointer(self):
        firmware = build(replace(describe("minimal-vmm"), boot_errors=b"boot" * 10))
        image = firmware.image(boot_errors=RAM + 0x20_0000)
        bert = Bert.parse(image.region("bert")[1]).head
        assert (bert.boot_error_region, bert.boot_error_region_length) == (RAM + 0x20_0000, 40)
        assert image.region("boot_errors") == (RAM + 0x20_0000, b"boot" * 10)
        assert firmware.files[BOOT_ERRORS_FILE] == b"boot" * 10
        with pytest.raises(FirmwareError, match="boot_errors: 19 bytes"):
            build(replace(describe("minimal-vmm"), boot_errors=bytes(19)))

    def test_no_uart_no_console(self):
        machine = replace(virt_machine(), uart=None)
        firmware = build(FirmwareDescription(machine, (SEA,)))
        assert "SPCR" not in [t.signature for t in firmware.tables]
        assert b"COM0" not in firmware.table("DSDT")

    def test_extra_tables_are_carried_along(self):
        extra = seal(TableHeader(signature="TEST", length=0, revision=1), b"x" * 5)
        firmware = build(replace(describe("minimal-vmm"), extra=(extra, extra)))
        image = firmware.image()
        assert find_tables(memory(image), image.rsdp)["TEST"][1] == extra
        assert [n for n in firmware.aml(image) if n.startswith("test")] == ["test.aml", "test2.aml"]

    def test_extra_tables_that_cannot_be(self):
        header = TableHeader(signature="HEST", length=0, revision=1)
        for extra, reason in (
            (seal(header, bytes(4)), "made from the description"),
            (b"TEST", "36 bytes needed"),
            (header.encode() + b"xxx", "is not between"),
            (seal(header, bytes(4)) + b"behind", "not sealed"),
            (seal(header, bytes(4))[:-1] + b"\1", "not sealed"),
        ):
            with pytest.raises(FirmwareError, match=reason) as caught:
                build(replace(describe("minimal-vmm"), extra=(extra,)))
            assert caught.value.what == "extra[0]"

    def test_single_tables_for_an_initrd(self):
        firmware = build(describe("minimal-vmm"))
        image = firmware.image()
        files = firmware.aml(image)
        assert set(files) == {"dsdt.aml", "facp.aml", "apic.aml", "gtdt.aml", "spcr.aml", "hest.aml"}
        assert Hest.parse(files["hest.aml"]) == image.hest
        assert not any(checksum(data) for data in files.values())

    def test_the_address_to_write_back(self):
        base = describe("minimal-vmm")
        for kind, name in ((None, None), ("errors", "etc/hardware_errors_addr"), ("hest", "etc/acpi_table_hest_addr")):
            firmware = build(replace(base, write_back=kind))
            assert (name in firmware.files) is (name is not None)
            placed = firmware.link(firmware.place())
            image = firmware.image()
            expected = image.region("hest" if kind == "hest" else "hardware_errors")[0].to_bytes(8, "little")
            assert placed.written == ({name: expected} if name else {})

    def test_the_event_device_serves_every_interrupt(self):
        sources = [SourceDescription(i, NotificationType.GSIV, vector=v) for i, v in enumerate((50, 51, 50))]
        machine = virt_machine(event_device=EventDevice(60))
        dsdt = build(FirmwareDescription(machine, (*sources, replace(GPIO, source_id=9)))).table("DSDT")
        for gsiv in (50, 51, 60):
            assert dsdt.count(b"\x89\x06\x00\x03\x01" + gsiv.to_bytes(4, "little")) == 1

    def test_a_guest_without_an_error_device(self):
        assert b"PNP0C33" not in build(FirmwareDescription(virt_machine(), (SEA,))).table("DSDT")

    def test_redistributors_of_a_gicv3(self):
        controllers = Madt.parse(build(describe("minimal-vmm", vcpus=2)).table("APIC")).controllers
        found = [c for c in controllers if isinstance(c, GicRedistributor)]
        assert [(r.discovery_range_base_address, r.discovery_range_length) for r in found] == [(0x80A_0000, 0xF6_0000)]


class TestPlacing:
    firmware = build(describe("minimal-vmm", memory=64 * MIB))

    @pytest.mark.parametrize(
        ("where", "what", "reason"),
        [
            ({"errors": RAM + 4}, ERRORS_FILE, "not aligned to 8"),
            ({"tables": RAM + 8}, RSDP_FILE, "not aligned to 16"),
            ({"errors": 0x900_0000}, ERRORS_FILE, "overlaps UART"),
            ({"errors": RAM + 64 * MIB - 4096}, ERRORS_FILE, "not in RAM"),
            ({"tables": 0}, RSDP_FILE, "not in RAM"),
            ({"tables": RAM, "errors": RAM + 0x800}, ERRORS_FILE, "shares a page of 65536"),
            ({"tables": RAM, "errors": RAM + 64}, ERRORS_FILE, "overlaps etc/acpi/tables"),
            ({"errors": RAM - 4096}, ERRORS_FILE, "not in RAM"),
        ],
    )
    def test_rules(self, where, what, reason):
        with pytest.raises(FirmwareError, match=reason) as caught:
            self.firmware.image(**where)
        assert caught.value.what == what
        assert "0x" in caught.value.where

    def test_what_is_taken_already(self):
        machine = replace(self.firmware.description.machine, reserved=(Range(RAM + 0x10_0000, 0x1000),))
        firmware = build(replace(self.firmware.description, machine=machine))
        with pytest.raises(FirmwareError, match=r"overlaps reserved memory at 0x40100000\.\.0x40101000"):
            firmware.image(errors=RAM + 0x10_0000 - 0x1000)

    def test_what_the_memory_map_must_say(self):
        rows = self.firmware.reserved(self.firmware.place())
        assert {(r.name, r.kind) for r in rows} == {
            (RSDP_FILE, "ACPI reclaim"), (TABLES_FILE, "ACPI reclaim"), (ERRORS_FILE, "ACPI NVS"),
        }  # fmt: skip
        for row in rows:
            assert row.range.gpa % 0x1_0000 == 0 == row.range.size % 0x1_0000

    def test_no_room(self):
        firmware = build(describe("minimal-vmm", memory=0x1_0000))
        with pytest.raises(FirmwareError, match="not in RAM"):
            firmware.image()


class TestDescriptions:
    def refused(self, match, sources=(SEA,), **changes):
        machine = changes.pop("machine", virt_machine())
        with pytest.raises(FirmwareError, match=match):
            build(FirmwareDescription(machine, tuple(sources), **changes))

    def test_sources(self):
        self.refused("sources: there is none", sources=())
        self.refused("two sources have one source id", sources=(SEA, SEA))
        self.refused("block length 19", sources=(replace(SEA, block_length=19),))
        self.refused("block length 65537", sources=(replace(SEA, block_length=65537),))
        self.refused("source 1: gpio_signal needs", sources=(SEA, GPIO))
        self.refused("no SPI", sources=(SourceDescription(1, NotificationType.GSIV, vector=31),))
        self.refused("that of the UART", sources=(SourceDescription(1, NotificationType.GSIV, vector=33),))
        selected = virt_machine(event_device=EventDevice(41, 0x908_0000))
        gsiv = SourceDescription(1, NotificationType.GSIV, vector=ERROR_GSIV)
        self.refused("not that of the event device, 41", machine=selected, sources=(gsiv,))
        self.refused("more than 8 bytes", hypervisor="TOO LONG!")
        self.refused("'both' is neither", write_back="both")
        self.refused("^HardwareErrorNotification: vector: .*less than", sources=(replace(SEA, vector=1 << 32),))
        self.refused("^TableHeader: oem_id: 7 bytes", words=TableWords(oem_id="TOOLONG"))

    def test_the_largest_block(self):
        image = build(FirmwareDescription(virt_machine(), (replace(SEA, block_length=65536),))).image()
        assert image.sources[0].block_length == 65536

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"memory": ()}, "memory: there is none"),
            ({"memory": (Range(RAM, 0),)}, "no range"),
            ({"memory": (Range(RAM, 4095),)}, "whole 4096-byte pages"),
            ({"memory": (Range(RAM, 8192), Range(RAM + 4096, 4096))}, r"memory\[1\].*overlaps memory\[0\]"),
            ({"memory": (Range(0x800_0000, 0x1000),)}, "overlaps memory"),
            ({"mpidrs": ()}, "0 vCPUs"),
            ({"mpidrs": (0, 0)}, "same MPIDR"),
            ({"mpidrs": (1 << 24,)}, "bits outside"),
            ({"mpidrs": tuple(range(9)), "gic": GicV2(0x800_0000, 0x801_0000)}, "at most 8"),
            ({"mpidrs": tuple(range(4097)), "gic": GicV2(0x800_0000, 0x801_0000)}, "not 1 to 4096"),
            ({"gic": GicV3(0x800_0000, (Range(0x80A_0000, 0x1_0000),))}, "holds 0 of 1"),
            ({"uart": Uart(0x900_0000, 5)}, "GSIV 5 is no SPI"),
            ({"uart": Uart(0x900_0000, 33, 64)}, "none of 8, 16, 32"),
            ({"conduit": "HVC"}, "neither 'hvc' nor 'smc'"),
            ({"event_device": EventDevice(50, bit=0)}, "0x0 is no bit of"),
            ({"pmu_gsiv": 7}, "pmu_gsiv: GSIV 7 is neither"),
            ({"timers": Timers(el2=1020)}, "el2: GSIV 1020 is neither"),
            ({"event_device": EventDevice(33)}, "that of uart"),
            ({"event_device": EventDevice(50, 0x900_0008)}, "event device.*overlaps UART"),
        ],
    )
    def test_machines_that_contradict_themselves(self, changes, reason):
        with pytest.raises(FirmwareError, match=reason):
            replace(virt_machine(), **changes)

    def test_both_gics(self):
        v2 = Machine((Range(RAM, MIB),), GicV2(0x800_0000, 0x801_0000, msi_frame=MsiFrame(0x802_0000, 80, 64)))
        v3 = Machine((Range(RAM, MIB),), GicV3(0x800_0000, (Range(0x80A_0000, 0x4_0000),), its=0x808_0000))
        for machine in (v2, v3):
            madt = Madt.parse(build(FirmwareDescription(machine, (SEA,))).table("APIC"))
            assert len(madt.controllers) == (3 if machine is v2 else 4)
