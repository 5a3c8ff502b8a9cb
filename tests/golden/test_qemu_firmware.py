"""QEMU's own fw_cfg files: its script run by our model of firmware, its tables read, our presets against both."""

from __future__ import annotations

from pathlib import Path

import pytest

from acpi import aml, dsdt
from acpi.fadt import Fadt
from acpi.firmware import build
from acpi.firmware_presets import describe
from acpi.gas import AccessSize
from acpi.gtdt import Gtdt
from acpi.hest import Hest
from acpi.image import find_sources, find_tables
from acpi.linking import ERRORS_FILE, RSDP_FILE, SCRIPT_FILE, TABLES_FILE, execute
from acpi.loader import AddChecksum, AddPointer, Allocate, LoaderScript, WritePointer, Zone
from acpi.machine import EventDevice, Uart
from acpi.madt import GicCpuInterface, GicDistributor, GicMsiFrame, Madt
from acpi.spcr import Spcr, UartType
from acpi.table import TableHeader, checksum

QEMU = Path(__file__).parents[2] / "fixtures" / "qemu"
VERSIONS = ["7.2", "7.2-virt4.0", "11.1"]
WITH_HEST = ["7.2", "11.1"]
NAMES = [RSDP_FILE, TABLES_FILE, ERRORS_FILE, SCRIPT_FILE, "etc/hardware_errors_addr", "etc/acpi_table_hest_addr"]


def captured(version):
    """fw_cfg files by name."""
    paths = {name: QEMU / f"fwcfg-{version}-{name.replace('/', '_')}.bin" for name in NAMES}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


def tables(blob):
    """(signature, offset, bytes) of every table of ``etc/acpi/tables``; ours lie on multiples of 8."""
    at = 0
    while blob[at:].strip(b"\0"):
        at += len(blob[at:]) - len(blob[at:].lstrip(b"\0"))
        size = int.from_bytes(blob[at + 4 : at + 8], "little")
        yield blob[at : at + 4].decode(), at, blob[at : at + size]
        at += size


def table(version, signature):
    """One table of QEMU's, its checksum made right (in fw_cfg it is 0)."""
    found = next(data for name, _, data in tables(captured(version)[TABLES_FILE]) if name == signature)
    assert found[9] == 0
    return found[:9] + bytes([checksum(found)]) + found[10:]


# -- the script ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_qemus_script_loses_nothing(version):
    raw = captured(version)[SCRIPT_FILE]
    script = LoaderScript.parse(raw)
    assert script.build() == raw
    assert {type(c) for c in script.commands} <= {Allocate, AddPointer, AddChecksum, WritePointer}
    assert all(c.residue is None for c in script.commands)


def test_the_commands_say_what_qemu_meant():
    first, second, *_ = LoaderScript.parse(captured("7.2")[SCRIPT_FILE]).commands
    assert first == Allocate(file="etc/acpi/rsdp", alignment=16, zone=Zone.FSEG)
    assert second == Allocate(file="etc/hardware_errors", alignment=8, zone=Zone.HIGH)
    found = [c for c in LoaderScript.parse(captured("11.1")[SCRIPT_FILE]).commands if isinstance(c, WritePointer)]
    assert found == [
        WritePointer(pointer_file="etc/acpi_table_hest_addr", pointee_file="etc/acpi/tables", pointee_offset=6195)
    ]


@pytest.mark.parametrize("base", [0x4000_0000, 0x5C40_0000, 0x70_0000_0000])
@pytest.mark.parametrize("version", WITH_HEST)
def test_running_qemus_script_gives_tables_that_can_be_walked(version, base):
    files = captured(version)
    placed = execute(LoaderScript.parse(files[SCRIPT_FILE]), files, base=base)
    found = find_tables(placed.read, placed.rsdp)  # it checks every checksum, RSDP and XSDT included
    offsets = {name: offset for name, offset, _ in tables(files[TABLES_FILE])}
    assert set(found) == set(offsets) - {"DSDT", "XSDT"}
    blob = placed.files[TABLES_FILE][0]
    assert {name: gpa - blob for name, (gpa, _) in found.items()} == {n: offsets[n] for n in found}
    assert Fadt.parse(found["FACP"][1]).head.x_dsdt == blob + offsets["DSDT"]
    assert all(not checksum(data) for _, data in found.values())
    errors, region = placed.files[ERRORS_FILE]
    count = len(Hest.parse(found["HEST"][1]).sources)
    sources = find_sources(placed.read, found["HEST"][1])
    assert [s.register for s in sources] == [errors + 8 * i for i in range(count)]
    assert [s.ack for s in sources] == [errors + 8 * (count + i) for i in range(count)]
    assert [s.block for s in sources] == [errors + 16 * count + 1024 * i for i in range(count)]
    assert len(region) == (16 + 1024) * count
    address = int.from_bytes(next(iter(placed.written.values())), "little")
    assert address == (errors if version == "7.2" else found["HEST"][0])


def test_a_machine_without_ras_can_be_walked_too():
    files = captured("7.2-virt4.0")
    placed = execute(LoaderScript.parse(files[SCRIPT_FILE]), files)
    assert "HEST" not in find_tables(placed.read, placed.rsdp)
    assert placed.written == {}


# -- the tables ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("signature", "kind"), [("FACP", Fadt), ("APIC", Madt), ("GTDT", Gtdt), ("SPCR", Spcr)])
def test_qemus_tables_lose_nothing(version, signature, kind):
    raw = table(version, signature)
    parsed = kind.parse(raw)
    assert parsed.build() == raw
    assert kind.of_plain(parsed.plain()) == parsed


def test_what_qemus_tables_say():
    """Field by field, as ``iasl -d`` names and values them."""
    fadt = Fadt.parse(table("11.1", "FACP")).head
    assert (fadt.flags, fadt.psci_compliant, fadt.psci_use_hvc, fadt.fadt_minor_version) == (0x100000, True, True, 3)
    assert fadt.hypervisor_vendor_identity == "QEMU"
    distributor, cpu, frame = Madt.parse(table("7.2", "APIC")).controllers
    assert distributor == GicDistributor(physical_base_address=0x0800_0000, gic_version=2)
    assert cpu == GicCpuInterface(
        cpu_interface_number=0, acpi_processor_uid=0, mpidr=0, performance_interrupt_gsiv=0x17,
        physical_base_address=0x0801_0000, gicv=0x0804_0000, gich=0x0803_0000,
    )  # fmt: skip
    assert frame == GicMsiFrame(physical_base_address=0x0802_0000, spi_select=True, spi_count=0x40, spi_base=0x50)
    for version, size in (("7.2", 96), ("11.1", 104)):
        gtdt = Gtdt.parse(table(version, "GTDT"))
        head = gtdt.head
        assert (head.SIZE, gtdt.timers, head.cnt_control_base, head.cnt_read_base) == (size, (), 2**64 - 1, 2**64 - 1)
        gsivs = head.secure_el1_gsiv, head.non_secure_el1_gsiv, head.virtual_el1_gsiv, head.el2_gsiv
        assert gsivs == (0x1D, 0x1E, 0x1B, 0x1A)
        assert (head.secure_el1_flags, head.virtual_el1_flags, head.el2_flags) == (0, 0, 0)
        assert (head.non_secure_el1_always_on, head.non_secure_el1_edge) == (True, False)
    for version, width, access in (("7.2", 8, AccessSize.BYTE), ("11.1", 32, AccessSize.DWORD)):
        spcr = Spcr.parse(table(version, "SPCR")).head
        assert (spcr.interface_type, spcr.interrupt_type, spcr.gsiv) == (UartType.ARM_PL011, 8, 0x21)
        assert (spcr.base_address.bit_width, spcr.base_address.access_size) == (width, access)
        assert (spcr.base_address.address, spcr.baud_rate, spcr.stop_bits, spcr.flow_control) == (0x900_0000, 3, 1, 2)


def test_the_devices_are_encoded_as_qemu_encodes_them():
    blob = table("11.1", "DSDT")
    for device in (dsdt.processor(0), dsdt.uart(Uart(0x900_0000, 33)), dsdt.error_device()):
        assert blob.count(device) == 1
    ours = dsdt.event_device(EventDevice(41, 0x908_0000), [41])
    method = aml.method("_EVT", 1)[2:7]  # name and flags: QEMU's method says more than ours
    start = ours.index(b"\x08_HID")
    assert ours[start : ours.index(b"\x14", start)] in blob
    assert method in blob
    assert ours[ours.index(b"\xa0", start) :] in blob


# -- the presets ---------------------------------------------------------------------------

PRESETS = {"7.2": "qemu-7.2", "11.1": "qemu-11.1"}


def concerns_errors(command):
    """Whether a command is about the error region, or about the HEST."""
    files = [v for k, v in command.plain().items() if k.endswith("file")]
    return ERRORS_FILE in files or isinstance(command, WritePointer)


@pytest.mark.parametrize(("version", "preset"), PRESETS.items())
def test_a_presets_tables_are_qemus(version, preset):
    firmware = build(describe(preset))
    for signature in ("FACP", "APIC", "GTDT", "SPCR", "HEST"):
        ours, theirs = firmware.table(signature), next(
            data for name, _, data in tables(captured(version)[TABLES_FILE]) if name == signature
        )  # fmt: skip
        pointer = slice(140, 148) if signature == "FACP" else slice(0, 0)  # where the DSDT lies in the file
        assert ours[: pointer.start] + ours[pointer.stop :] == theirs[: pointer.start] + theirs[pointer.stop :]


@pytest.mark.parametrize(("version", "preset"), PRESETS.items())
def test_a_presets_error_region_and_its_commands_are_qemus(version, preset):
    """Equal but for where the HEST lies in ``etc/acpi/tables``: QEMU has more tables in front of it."""
    ours, theirs = build(describe(preset)).files, captured(version)
    assert ours[ERRORS_FILE] == theirs[ERRORS_FILE]
    found = []
    for files in (ours, theirs):
        start, size = next((at, len(d)) for name, at, d in tables(files[TABLES_FILE]) if name == "HEST")
        commands = []
        for command in LoaderScript.parse(files[SCRIPT_FILE]).commands:
            sums = isinstance(command, AddChecksum) and command.file == TABLES_FILE and command.start == start
            if not (concerns_errors(command) or sums):
                continue
            values = command.plain()
            for key in ("pointer_offset", "pointee_offset", "result_offset", "start"):
                tables_file = values.get("pointee_file" if key == "pointee_offset" else "pointer_file", TABLES_FILE)
                if key in values and tables_file == TABLES_FILE:
                    values[key] -= start
                    assert -1 < values[key] < size
            commands.append(values)
        found.append(commands)
    assert found[0] == found[1]
    assert len(found[0]) == {"7.2": 6, "11.1": 9}[version]


@pytest.mark.parametrize("name", ["qemu-7.2", "qemu-10.0", "qemu-11.1"])
def test_a_placed_preset_has_the_hest_of_qemus_guests(name):
    image = build(describe(name)).image(errors=0x5C41_0000)
    assert image.region("hest")[1] == (QEMU / f"HEST-{name.replace('-', '')}.bin").read_bytes()


def test_a_longer_preset_is_still_qemus_shape():
    """More vCPUs: every other byte of the tables stays."""
    one, four = build(describe("qemu-11.1")), build(describe("qemu-11.1", vcpus=4))
    for signature in ("FACP", "GTDT", "SPCR", "HEST"):
        skip = slice(140, 148) if signature == "FACP" else slice(0, 0)
        a, b = one.table(signature), four.table(signature)
        assert a[: skip.start] + a[skip.stop :] == b[: skip.start] + b[skip.stop :]
    cpus = [c for c in Madt.parse(four.table("APIC")).controllers if isinstance(c, GicCpuInterface)]
    assert [(c.mpidr, c.acpi_processor_uid) for c in cpus] == [(i, i) for i in range(4)]
    assert TableHeader.decode(four.table("APIC")).length == TableHeader.decode(one.table("APIC")).length + 3 * 80
