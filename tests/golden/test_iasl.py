"""What iasl makes of our tables, and what we make of iasl's; ``fixtures/acpi/ORIGIN.md`` tells of the files."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from acpi.aest import Aest
from acpi.aest_interface import AestInterfaceFlags, AestInterruptFlags
from acpi.aest_parts import AestProcessorFlags
from acpi.bert import Bert
from acpi.einj import Einj, Einjv2ErrorType
from acpi.einj_device import MEMORY_SIZE, EinjDevice, einj_table, trigger_table
from acpi.error_source import SourceFlags
from acpi.erst import Erst
from acpi.erst_device import erst_table
from acpi.evidence import STRUCTURES, TABLES
from acpi.frame import FixedTable, ListTable
from acpi.hest import FIXED, Hest
from acpi.instruction import InstructionFlags
from acpi.machine_check import MachineCheckSource
from acpi.presets import PRESETS
from acpi.tables import examine_table, table_class
from cper.wire import Struct
from tests.golden.iasl_samples import SAMPLES, Filler, generic_aest, header

FIXTURES = Path(__file__).parents[2] / "fixtures" / "acpi"
IASL = os.environ.get("IASL") or shutil.which("iasl")
needs_iasl = pytest.mark.skipif(IASL is None, reason="iasl is not installed")

BUILT = {
    **{f"sample {name}": make for name, make in SAMPLES.items()},
    **{f"preset {name}": lambda p=preset: p.place(0x8000_0000).hest for name, preset in PRESETS.items()},
    "device ERST": lambda: erst_table(0x900_0000),
    "device EINJ": lambda: einj_table(0x900_0000, 0x8000_0000),
    "device EINJ, version 2": lambda: einj_table(0x900_0000, 0x8000_0000, einjv2=True),
    "plain BERT": lambda: Bert.of(boot_error_region_length=4096, boot_error_region=0x8000_0000),
}

# -- running iasl --------------------------------------------------------------------


def run(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [IASL, *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False, errors="replace"
    )
    return done.stdout + done.stderr


@cache
def version() -> int:
    return int(re.search(r"version (\d+)", run(Path("/"), "-v"))[1])


@cache
def known() -> frozenset[str]:
    """Signatures that this iasl disassembles."""
    return frozenset(re.findall(r"^\s+(?:\d+\) )?(\w{4}) {2,}", run(Path("/"), "-ht"), re.MULTILINE))


def complaints(log: str, text: str = "") -> list[str]:
    """Lines in which iasl complains."""
    found = [line for line in log.splitlines() if re.match(r"\s*(Error|Warning|Remark)\b(?!s)", line)]
    return found + [line for line in text.splitlines() if "****" in line]


def there_and_back(tmp_path: Path, data: bytes) -> tuple[bytes, str]:
    """What iasl makes of its own disassembly, and the disassembly; nothing may be complained about."""
    (tmp_path / "t.aml").write_bytes(data)
    log = run(tmp_path, "-d", "t.aml")
    text = (tmp_path / "t.dsl").read_text()
    assert complaints(log, text) == []
    (tmp_path / "t.aml").unlink()
    log = run(tmp_path, "-z", "t.dsl")
    assert complaints(log) == []
    return (tmp_path / "t.aml").read_bytes(), text


@needs_iasl
@pytest.mark.parametrize("name", BUILT)
def test_iasl_disassembles_what_we_build_and_compiles_it_to_the_same_bytes(name, tmp_path):
    table = BUILT[name]()
    signature = table.header.signature
    if signature not in known() or str(version()) not in TABLES[signature]["iasl"]:
        assert str(version()) not in TABLES[signature]["iasl"], "evidence claims more than this iasl knows"
        check_headers_back_it(table)
        return
    data = table.build()
    assert there_and_back(tmp_path, data)[0] == data


def check_headers_back_it(table) -> None:
    """A table that this iasl does not know rests on the offsets of independent headers."""
    structures = [table.head] if isinstance(table, FixedTable | ListTable) else []
    structures += list(getattr(table, "entries", ()))
    for node in getattr(table, "nodes", ()):
        structures += [node.header, node.data, node.interface, *node.interrupts]
    assert structures
    assert all(STRUCTURES[type(s).__name__] for s in structures)


@needs_iasl
@pytest.mark.parametrize("signature", sorted(TABLES))
def test_iasl_templates_decode_and_encode_identically(signature, tmp_path):
    if signature not in known():
        assert str(version()) not in TABLES[signature]["iasl"]
        return
    run(tmp_path, "-T", signature)
    source = next(tmp_path.iterdir())
    log = run(tmp_path, "-z", source.name)
    if complaints(log):
        assert str(version()) not in TABLES[signature]["iasl"], log
        return
    data = next(tmp_path.glob("*.aml")).read_bytes()
    table, error = examine_table(data)
    assert type(table) is table_class(signature)
    if error is None and not hasattr(table, "encode"):
        assert table.build() == data
        return
    assert table.encode() == data


@needs_iasl
def test_iasl_takes_firmware_first_for_global(tmp_path):
    """iasl (20200925 to 20260408) has GLOBAL of an AER source at bit 0; its own header has bit 1, as edk2 has."""
    for flags, shown in [(1, ("1", "1")), (2, ("0", "0"))]:
        table = Hest((Filler()(FIXED[7], flags=flags),), header("HEST", 2))
        (tmp_path / "t.aml").write_bytes(table.build())
        run(tmp_path, "-d", "t.aml")
        text = (tmp_path / "t.dsl").read_text()
        assert re.search(r"Firmware First : (\d)\n\s+Global : (\d)\n", text).groups() == shown
        assert complaints("", text) == []
        assert re.search(r"Flags \(decoded below\) : (\d\d)", text)[1] == f"{flags:02}"


@needs_iasl
def test_iasl_shows_a_generic_processor_resource_that_it_cannot_compile(tmp_path):
    if "AEST" not in known():
        check_headers_back_it(generic_aest())
        return
    (tmp_path / "t.aml").write_bytes(generic_aest().build())
    run(tmp_path, "-d", "t.aml")
    check_against(generic_aest(), (tmp_path / "t.dsl").read_text())


# -- what iasl says that our bytes hold -----------------------------------------------

FIELD = re.compile(r"^\[([0-9A-F]+)h [0-9]{4,} +([0-9A-F]+?)h?\] +(.*?) : (.*)$")

NAMES = {
    "table_length": "length", "asl_compiler_id": "creator_id", "asl_compiler_revision": "creator_revision",
    "subtable_type": "type", "notify_type": "type", "notify_length": "length", "pollinterval": "poll_interval_ms",
    "polling_threshold_window": "polling_threshold_window_ms", "error_threshold_window": "error_threshold_window_ms",
    "num_hardware_banks": "bank_count", "clear_status_on_init": "clear_status_on_initialization",
    "status_format": "status_data_format", "bus": "bus_and_segment", "devicecontrol": "device_control",
    "2nd_uncorrectable_mask": "secondary_uncorrectable_mask",
    "2nd_uncorrectable_severity": "secondary_uncorrectable_severity",
    "2nd_advanced_capabilities": "secondary_advanced_capabilities", "space_id": "address_space",
    "encoded_access_width": "access_size", "serialization_header_length": "serialization_header_size",
    "injection_header_length": "injection_header_size", "number_of_pcc_descriptors": "pcc_descriptor_count",
    "boot_error_region_address": "boot_error_region", "cc_sub_type": "cc_subtype",
    "node_specific_offset": "node_data_offset", "node_interrupt_array_offset": "node_interrupt_offset",
    "node_interrupt_array_count": "node_interrupt_count", "processor_affinity_structure": "processor_affinity",
    "vendor_specific_data": "vendor_data", "gic_interface_type": "interface_type", "interface_type": "type",
    "proxy_node_address": "node_address", "arm_error_node_device": "error_node_device",
    "err-group_register_addr": "error_group_register_base", "err-inject_register_addr": "fault_inject_register_base",
    "irq-config_register_addr": "interrupt_config_register_base", "interrupt_type": "type", "iortid": "its_group",
}  # fmt: skip
"""Labels of iasl that differ from our names."""
AMBIGUOUS = {
    "channel_id": {"platform_communication_channel_identifier", "pcc_subspace_id"},
    "flags": {"injection_flags"},
}


def said(text: str):
    """(offset, size, name, value) of every field that iasl shows; reserved ones and headings left out."""
    lines = iter(text[: text.find("Raw Table Data")].splitlines())
    for line in lines:
        match = FIELD.match(line)
        if match is None:
            continue
        offset, size, label = int(match[1], 16), int(match[2], 16), match[3].strip()
        value = re.sub(r"/\*.*\*/\\?", "", match[4])  # a raw buffer is shown as text, too
        if re.fullmatch(r"\d+", match[2]) and "h]" not in line:
            size = int(match[2])  # before 2022 the size was decimal
        while value.endswith("\\"):
            value = value[:-1] + next(lines).strip()
        name = re.sub(r" ", "_", re.sub(r" \(.*", "", label).lower())
        if value.startswith("[") or name.startswith("reserved"):
            continue
        yield offset, size, NAMES.get(name, name), number(value, size)


def number(value: str, size: int):
    if value.startswith('"'):
        return value[1 : 1 + size]
    words = re.sub(r"\[.*", "", value).split()
    return int(words[0], 16) if len(words) == 1 else bytes.fromhex("".join(words))


def held(value: Struct, at: int = 0):
    """(offset, size, name, value) of every field of a structure, words that slices share put together from them."""
    words: dict[tuple[int, int], int] = {}
    names: dict[tuple[int, int], str] = {}
    for row in value.layout:
        if "." in row.path:
            continue
        if row.bits is not None:
            key = (row.offset, row.size)
            words[key] = words.get(key, 0) | int(getattr(value, row.path)) << row.bits[0]
        elif row.reserved:
            names[row.offset, row.size] = row.path
        elif isinstance(inner := getattr(value, row.path), Struct):
            yield from held(inner, at + row.offset)
        else:
            if isinstance(inner, tuple):
                inner = b"".join(word.to_bytes(8, "little") for word in inner)
            yield at + row.offset, row.size, row.path, inner if isinstance(inner, str | bytes) else int(inner)
    for (offset, size), word in words.items():
        yield at + offset, size, names[offset, size], word


def whole(table):
    """Every field of a table."""
    built = type(table).parse(table.build())
    if isinstance(table, Hest):
        from acpi.hest import HestHeader

        yield from held(HestHeader.decode(table.build()))
        for source, at in zip(built.sources, built.offsets, strict=False):
            if not isinstance(source, MachineCheckSource):
                yield from held(source, at)
                continue
            yield from held(source.header, at)
            for index, bank in enumerate(source.banks):
                yield from held(bank, at + source.header.SIZE + bank.SIZE * index)
    elif isinstance(table, Aest):
        yield from held(built.header)
        at = built.header.SIZE
        for node in built.nodes:
            assert node.image is None
            yield from held(node.header, at)
            yield from held(node.data, at + node.header.node_data_offset)
            if node.resource is not None:
                yield from held(node.resource, at + node.header.node_data_offset + node.data.SIZE)
            yield from held(node.interface, at + node.header.node_interface_offset)
            for index, interrupt in enumerate(node.interrupts):
                yield from held(interrupt, at + node.header.node_interrupt_offset + interrupt.SIZE * index)
            at += node.SIZE
    else:
        yield from held(built.head)
        for index, entry in enumerate(getattr(built, "entries", ())):
            yield from held(entry, built.offset(index))


def as_number(value):
    """One side may show a number where the other shows its bytes."""
    return int.from_bytes(value, "little") if isinstance(value, bytes) else value


def check_against(table, text: str) -> None:
    """Every field of ours is where, as wide as, named as and worth what iasl says; and the other way round."""
    ours = {(offset, size): (name, value) for offset, size, name, value in whole(table)}
    theirs = {(offset, size): (name, value) for offset, size, name, value in said(text)}
    # GHES has flags, AEST 1 a group format, where iasl sees reserved bytes
    reserved = {k for k, (name, _) in ours.items() if name in {"flags", "group_format"} and k not in theirs}
    assert all(ours[key][1] == 0 for key in reserved)
    assert ours.keys() - reserved == theirs.keys()
    for key, (name, value) in theirs.items():
        mine, held_value = ours[key]
        assert mine == name or mine in AMBIGUOUS.get(name, ()), (key, mine, name)
        assert as_number(held_value) == as_number(value), (key, name)


@pytest.mark.parametrize("name", SAMPLES)
def test_iasl_sees_every_field_where_we_put_it(name):
    table = SAMPLES[name]()
    check_against(table, (FIXTURES / f"{name}.dsl").read_text())
    assert (FIXTURES / f"{name}.aml").read_bytes() == table.build(), "the sample has changed: see ORIGIN.md"


FLAG_NAMES = {
    ("Firmware First", "GHES Assist"): [SourceFlags.FIRMWARE_FIRST, SourceFlags.GHES_ASSIST],
    ("Firmware First", "Global"): [SourceFlags.FIRMWARE_FIRST, SourceFlags.FIRMWARE_FIRST],  # iasl's mistake: see above
    ("Preserve Register Bits",): [InstructionFlags.PRESERVE_REGISTER],
    ("Global", "Shared"): [AestProcessorFlags.GLOBAL, AestProcessorFlags.SHARED],
    ("Level Triggered",): [AestInterruptFlags.LEVEL_TRIGGERED],
    ("Shared Interface", "Clear MISCx Registers"): [AestInterfaceFlags.SHARED, AestInterfaceFlags.CLEAR_MISC],
    (
        "Shared Interface", "Clear MISCx Registers", "Error Node Device Valid", "Affinity Type",
        "Error group Address Valid", "Fault Injection Address Valid", "Interrupt Config Address valid",
    ): [
        AestInterfaceFlags.SHARED, AestInterfaceFlags.CLEAR_MISC, AestInterfaceFlags.ERROR_NODE_DEVICE_VALID,
        AestInterfaceFlags.AFFINITY_TYPE, AestInterfaceFlags.ERROR_GROUP_VALID,
        AestInterfaceFlags.FAULT_INJECTION_VALID, 1 << 7,  # iasl's mistake, or Linux's: its patches have bit 6
    ],
}  # fmt: skip
"""The bits that iasl shows one by one, and our names for them."""
SEEN_BOTH = {
    "Shared Interface", "Clear MISCx Registers", "Error Node Device Valid", "Affinity Type",
    "Error group Address Valid", "Fault Injection Address Valid",
}  # fmt: skip


@pytest.mark.parametrize("name", ["HEST", "ERST", "EINJ", "AEST", "AEST-1"])
def test_iasl_sees_every_flag_by_our_name(name):
    ours = {(offset, size): value for offset, size, _, value in whole(SAMPLES[name]())}
    seen = {}
    text = (FIXTURES / f"{name}.dsl").read_text()
    pattern = r"^\[([0-9A-F]+)h \d+ ([0-9A-F]+)h\] +Flags[^\n]*\n((?: +[^\n\[]+ : [01]\n)+)"
    for match in re.finditer(pattern, text, re.MULTILINE):
        shown = re.findall(r"^ +(.+?) : ([01])$", match[3], re.MULTILINE)
        labels = tuple(label for label, _ in shown)
        value = ours[int(match[1], 16), int(match[2], 16)]
        assert [bool(value & mask) for mask in FLAG_NAMES[labels]] == [bit == "1" for _, bit in shown]
        for label, bit in shown:
            seen.setdefault((labels, label), set()).add(bit)
    assert seen
    if name == "AEST":  # each of these bits was seen set and clear
        assert all(bits == {"0", "1"} for (_, label), bits in seen.items() if label in SEEN_BOTH)


@needs_iasl
@pytest.mark.parametrize("name", SAMPLES)
def test_the_iasl_installed_sees_it_too(name, tmp_path):
    table = SAMPLES[name]()
    if table.header.signature not in known():
        check_headers_back_it(table)
        return
    (tmp_path / "t.aml").write_bytes(table.build())
    run(tmp_path, "-d", "t.aml")
    check_against(table, (tmp_path / "t.dsl").read_text())


def test_the_comparison_can_fail():
    text = (FIXTURES / "BERT.dsl").read_text()
    table = SAMPLES["BERT"]()
    check_against(table, text)
    for old, new in [("Region Length : ", "Region Length : 1"), ("028h 0040 008h", "028h 0040 004h"), ("Boot", "Boat")]:
        with pytest.raises(AssertionError):
            check_against(table, text.replace(old, new))


# -- bytes that iasl made --------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("template-*.aml")), ids=lambda p: p.stem)
def test_templates_of_iasl_decode_and_encode_identically(path):
    data = path.read_bytes()
    table, error = examine_table(data)
    assert type(table) is table_class(data[:4].decode())
    assert table.encode() == data
    if path.stem == "template-EINJ":
        assert str(error) == "Einj.head.injection_entry_count at 0x2c: 10 entries need 320 bytes, 256 given"
        return
    assert error is None
    assert table.build() == data
    assert type(table).of_plain(table.plain()).build() == data if hasattr(table, "of_plain") else True


def test_the_hest_template_announces_four_of_its_eight_sources():
    data = (FIXTURES / "template-HEST.aml").read_bytes()
    assert len(Hest.parse(data).sources) == 4
    right = data[:36] + (8).to_bytes(4, "little") + data[40:]
    table = Hest.parse(right)
    assert [s.type for s in table.sources] == [0, 1, 7, 8, 9, 9, 10, 11]
    assert (table.trailing, table.encode()) == (b"", right)


def test_qemu_and_we_write_the_same_serialization_table():
    """QEMU 7.2, q35 with -device acpi-erst; its BAR 0 was at 0xfebd7000."""
    data = (FIXTURES / "ERST-qemu7.2.bin").read_bytes()
    table = Erst.parse(data)
    assert erst_table(0xFEBD7000, table.header).build() == data


def test_a_trigger_table_is_an_injection_table_to_iasl(tmp_path):
    """The trigger table has no signature; its entries are those of EINJ, which iasl knows."""
    entries = trigger_table(0x900_0000).entries
    table = Einj.of(entries, header("EINJ", 2))
    assert [e.action for e in Einj.parse(table.build()).entries] == [0xFF]
    device = EinjDevice(Buffer(), 0, 0x900_0000, lambda _: None, supported_v2=Einjv2ErrorType(2))
    device.reset()
    assert entries[0].encode() in bytes(device.memory.data)


class Buffer:
    """Memory of a device."""

    def __init__(self):
        self.data = bytearray(MEMORY_SIZE)

    def read(self, offset, size):
        return bytes(self.data[offset : offset + size])

    def write(self, offset, data):
        self.data[offset : offset + len(data)] = data


def test_evidence_claims_what_the_bindings_say():
    import tomllib

    files = {"acpica": "acpica", "edk2-acpi": "edk2", "edk2-qemuloader": "edk2", "linux-apei": "linux"}
    bound = tomllib.loads((FIXTURES.parent / "offsets" / "acpi.toml").read_text())["structs"]
    for name, claim in STRUCTURES.items():
        headers = {files[h.partition(":")[0]] for h in bound[name]["headers"]}
        assert set(claim.split()) == headers, name


def test_evidence_names_kernels_whose_reports_show_the_table():
    lab = FIXTURES.parents[1] / "docs" / "lab"
    for signature, claim in TABLES.items():
        for report in claim.get("kernel", ()):
            assert f"| {signature} is what we built" in (lab / f"{report}.md").read_text(), (signature, report)
