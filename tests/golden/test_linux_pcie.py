"""PCI Express sections that real arm64 kernels read: our decoding against what went in, and what they printed."""

from __future__ import annotations

import struct

import orjson
import pytest

from cper.pcie import Pcie, PcieByRcrb
from cper.pcie_registers import PciePortType
from cper.record import Record
from cper.record_text import json_of
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import entries, printed, vectors
from tests.laws import mutants

VECTORS = vectors("pcie")
WORDS = {
    PciePortType.PCIE_ENDPOINT: "PCIe end point",
    PciePortType.LEGACY_PCI_ENDPOINT: "legacy PCI end point",
    PciePortType.ROOT_PORT: "root port",
    PciePortType.UPSTREAM_SWITCH_PORT: "upstream switch port",
    PciePortType.DOWNSTREAM_SWITCH_PORT: "downstream switch port",
    PciePortType.PCIE_TO_PCI_BRIDGE: "PCIe to PCI/PCI-X bridge",
    PciePortType.PCI_TO_PCIE_BRIDGE: "PCI/PCI-X to PCIe bridge",
    PciePortType.ROOT_COMPLEX_INTEGRATED_ENDPOINT: "root complex integrated endpoint device",
    PciePortType.ROOT_COMPLEX_EVENT_COLLECTOR: "root complex event collector",
}
"""As ``drivers/firmware/efi/cper.c`` names them."""


def decoded(vector, decode=Pcie.decode):
    """(entry header, section, what was put in) of each section that is long enough."""
    return [(e.header, decode(e.body), put) for e, put in entries("pcie", vector) if len(e.body) >= 208]


def render(head, p, kernel):
    """The lines that the kernel would print of this section."""
    out = ["section_type: PCIe error"]
    if p.port_type is not None:
        out.append(f"port_type: {int(p.port_type)}, {WORDS.get(p.port_type, 'unknown')}")
    if p.version is not None:
        out.append(f"version: {p.version.major}.{p.version.minor}")
    if p.command_status is not None:
        out.append(f"command: {p.command_status.command:#06x}, status: {p.command_status.status:#06x}")
    if (d := p.device_id) is not None:
        out.append(f"device_id: {d.segment:04x}:{d.bus:02x}:{d.device:02x}.{d.function:x}")
        out.append(f"slot: {d.slot_number}")
        out.append(f"secondary_bus: {d.secondary_bus:#04x}")
        out.append(f"vendor_id: {d.vendor_id:#06x}, device_id: {d.device_id:#06x}")
        out.append(f"class_code: {d.class_code:06x}")
    if (serial := p.serial_number) is not None:
        out.append(f"serial number: {serial & 0xFFFFFFFF:#06x}, {serial >> 32:#06x}")
    if p.bridge is not None:
        out.append(f"bridge: secondary_status: {p.bridge.secondary_status:#06x}, control: {p.bridge.control:#06x}")
    if (a := p.aer) is not None and (kernel != "6.1" or head.severity & 1):
        if kernel != "6.1":
            out.append(f"aer_cor_status: {a.correctable_error_status:#010x}, aer_cor_mask: {hex8(a, 'correctable')}")
        out.append(
            f"aer_uncor_status: {a.uncorrectable_error_status:#010x}, aer_uncor_mask: {hex8(a, 'uncorrectable')}"
        )
        out.append(f"aer_uncor_severity: {a.uncorrectable_error_severity:#010x}")
        out.append("TLP Header: " + " ".join(f"{w:08x}" for w in a.header_log))
    return out


def hex8(aer, kind):
    return f"{getattr(aer, f'{kind}_error_mask'):#010x}"


def by_rcrb(valid):
    """A section as the text of UEFI 2.11 has it: 24 to 39 are Device ID, of which 7 to 10 are the lower address."""
    device = struct.pack("<HH3sIBBHB", 0x8086, 0x1234, b"\x01\x04\x06", 0xFEDC_B000, 0x42, 0x43, 0x29 << 3, 0)
    head = struct.pack("<QIIHHI", valid, 4, 0x0602, 0x0406, 0x0010, 0x0000_00A5)
    return head + device + bytes(range(1, 169))


def test_a_device_named_by_its_rcrb():
    body = by_rcrb(0x3F7)
    assert len(body) == 208
    section = read_section(Pcie.GUID, body)
    assert type(section) is PcieByRcrb
    assert section.encode() == body
    device = section.device_id
    assert (device.vendor_id, device.device_id, device.class_code) == (0x8086, 0x1234, 0x060401)
    assert (device.bus, device.secondary_bus, device.slot_number) == (0x42, 0x43, 0x29)
    assert (section.rcrb_high_address, device.rcrb_low_address) == (0xA5, 0xFEDC_B000)
    assert section.rcrb_address == 0xA5_FEDC_B000
    without = read_section(Pcie.GUID, by_rcrb(0x1F7))
    assert (without.rcrb_high_address, without.rcrb_address) == (None, 0xFEDC_B000)
    assert without.encode() == by_rcrb(0x1F7)
    assert section.port_type == PciePortType.ROOT_PORT
    assert bytes(section.aer.encode()) == body[112:]


@pytest.mark.parametrize("valid", [0x3F7, 0x1F7, 0x100, 0x3FF, 0x108, 0x200, 0x2FF, 0])
def test_forms_of_the_device_id(valid):
    """Bit 3 wins where both are set, which UEFI forbids; bytes and JSON, of a record and of its text, are the same."""
    body = by_rcrb(valid)
    section = read_section(Pcie.GUID, body)
    assert type(section) is (PcieByRcrb if valid & 0x108 == 0x100 else Pcie)
    plain = plain_body(Pcie.GUID, body)
    assert plain == {"section": section.plain()}
    assert body_of_plain(Pcie.GUID, plain) == section.encode() == body
    for short in (0, 1, 8, 207):
        assert "error" in plain_body(Pcie.GUID, body[:short])
    assert body_of_plain(Pcie.GUID, plain_body(Pcie.GUID, body + b"x")) == body + b"x"
    data = Record.of([section]).encode()
    said = Record.plain_of(data)
    assert said["sections"][0]["section"] == plain["section"]
    assert Record.raw_of_plain(said) == data
    for _ in range(80):  # until the shape has a function
        assert json_of(data) == orjson.dumps(said)


def test_the_vectors_are_all_there():
    assert len(VECTORS) == 15
    assert sum(len(decoded(v)) for v in VECTORS) == 33


@pytest.mark.parametrize("vector", VECTORS)
def test_decoding_gives_what_was_put_in(vector):
    for _, section, put in decoded(vector):
        holds_what_was_put_in(section, put)


def holds_what_was_put_in(p, put):
    valid, got, want = put["validation_bits"], {}, {}

    def expect(bit, **fields):
        for name, (found, value) in fields.items():
            got[name], want[name] = (found() if valid >> bit & 1 else found), value if valid >> bit & 1 else found

    expect(0, port_type=(lambda: int(p.port_type), put["port_type"]))
    expect(1, version=(lambda: (p.version.major, p.version.minor), (put["version_major"], put["version_minor"])))
    words = lambda part, names: lambda: [getattr(getattr(p, part), n) for n in names]  # noqa: E731
    expect(2, command=(words("command_status", ["command", "status"]), [put["command"], put["status"]]))
    ids = ["vendor_id", "device_id", "function", "device", "segment", "bus", "secondary_bus"]
    expect(3, device=(words("device_id", ids), [put[n] for n in ids]))
    expect(3, slot=(lambda: p.device_id.slot_number, put["slot"] >> 3))
    expect(3, class_code=(lambda: f"{p.device_id.class_code:06x}", bytes.fromhex(put["class_code"])[::-1].hex()))
    expect(4, serial=(lambda: p.serial_number, put["serial_upper"] << 32 | put["serial_lower"]))
    bridge = [put["bridge_secondary_status"], put["bridge_control"]]
    expect(5, bridge=(words("bridge", ["secondary_status", "control"]), bridge))
    expect(6, capability=(lambda: p.capability.encode().hex(), put["capability"]))
    expect(7, aer_info=(lambda: p.aer.encode().hex(), put["aer_info"]))
    if valid >> 7 & 1:
        expect(7, aer=(lambda: registers(p.aer), put["aer"]))
    assert got == want
    parts = (p.port_type, p.version, p.command_status, p.device_id, p.serial_number, p.bridge, p.capability, p.aer)
    assert [part is not None for part in parts] == [bool(valid >> bit & 1) for bit in range(8)]


def registers(aer):
    """The registers by the generator's names; a register that we only have in slices as the whole word."""
    raw = aer.encode()
    word = lambda path: int.from_bytes(raw[aer.at(path).offset :][:4], "little")  # noqa: E731
    return {
        "uncor_status": aer.uncorrectable_error_status,
        "uncor_mask": aer.uncorrectable_error_mask,
        "uncor_severity": aer.uncorrectable_error_severity,
        "cor_status": aer.correctable_error_status,
        "cor_mask": aer.correctable_error_mask,
        "cap_control": word("capabilities_and_control"),
        "header_log": list(aer.header_log),
        "root_command": aer.root_error_command,
        "root_status": word("root_error_status"),
        "source_id": aer.uncorrectable_source << 16 | aer.correctable_source,
    }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("vector", [v for v in VECTORS if v != "pcie-short"])
def test_the_kernels_printed_what_we_read(vector, kernel):
    assert [render(h, p, kernel) for h, p, _ in decoded(vector)] == printed("pcie", vector, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_short_section_is_refused_by_all(kernel):
    """207 bytes: the kernels' printer refuses them, and so do we."""
    [(entry, _)] = entries("pcie", "pcie-short")
    assert printed("pcie", "pcie-short", kernel)[0][-1] == "[Firmware Warn]: error section length is too small"
    with pytest.raises(TruncatedError) as caught:
        entry.section()
    assert (caught.value.structure, caught.value.offset) == ("Pcie", 207)


def test_what_the_kernel_says_of_a_real_register_is_what_its_bits_say():
    """Linux names the bits of the status that it was given: all 32 of the correctable one."""
    from tests.golden.linux_sections import family

    names = {
        "RxErr": "RECEIVER_ERROR", "BadTLP": "BAD_TLP", "BadDLLP": "BAD_DLLP", "Rollover": "REPLAY_NUM_ROLLOVER",
        "Timeout": "REPLAY_TIMER_TIMEOUT", "NonFatalErr": "ADVISORY_NON_FATAL_ERROR",
        "CorrIntErr": "CORRECTED_INTERNAL_ERROR", "HeaderOF": "HEADER_LOG_OVERFLOW",
    }  # fmt: skip
    [(_, section, _)] = decoded("pcie-corbits")
    lines = [line for line in family("pcie")["pcie-corbits"]["log"]["7.2"] if "    [" in line]
    told = {int(line.split("[")[1][:2]): line.split("] ")[1].split("  ")[0].strip() for line in lines}
    ours = {mask.bit_length() - 1: name for name, mask in section.aer.correctable_error_status.names.items()}
    assert {bit: names[word] for bit, word in told.items() if "Unknown" not in word} == ours
    first = next(line for line in lines if line.endswith("(First)"))
    assert section.aer.first_error_pointer == int(first.split("[")[1][:2])


def test_no_two_fields_of_the_section_can_be_exchanged():
    """Every mutant of the section's own layout disagrees with what went in."""
    survivors = []
    for mutant in mutants.all_of(Pcie):
        if mutant.layout is None:
            continue
        decode = mutant.codec(Pcie)["decode"]
        try:
            for vector in ("pcie-bits", "pcie-corr-present"):
                for _, section, put in decoded(vector, decode):
                    holds_what_was_put_in(section, put)
        except (AssertionError, AttributeError, ValueError, TypeError):
            continue
        survivors.append((mutant.kind, mutant.first, mutant.second))
    assert survivors == []
