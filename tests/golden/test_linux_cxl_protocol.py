"""CXL Protocol Error sections that real arm64 kernels read: what went in, what they printed, traced and dumped."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from cper.cxl_protocol import CxlAgentType, CxlProtocol, CxlProtocolHead, CxlProtocolPortHead
from cper.cxl_registers import CxlCorrectableError, CxlRasCapability, CxlUncorrectableError, DvsecHeader
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import TruncatedError
from tests.golden.linux_sections import dumped, entries, family, items, printed

FAMILY = "cxl_protocol"
READ = sorted(family(FAMILY).keys() - {"cxlprot-len115"})
AGENT = [
    "Restricted CXL Device", "Restricted CXL Host Downstream Port", "CXL Device", "CXL Logical Device",
    "CXL Fabric Manager managed Logical Device", "CXL Root Port", "CXL Downstream Switch Port",
    "CXL Upstream Switch Port",
]  # fmt: skip
DEVICES = [
    CxlAgentType.RESTRICTED_DEVICE, CxlAgentType.DEVICE, CxlAgentType.LOGICAL_DEVICE,
    CxlAgentType.FM_MANAGED_LOGICAL_DEVICE,
]  # fmt: skip


@pytest.mark.parametrize("vector", READ)
def test_what_went_in_is_what_we_read(vector):
    for entry, put in entries(FAMILY, vector):
        section, valid = entry.section(), put["validation_bits"]
        assert section.encode() == entry.body
        assert plain_body(CxlProtocol.GUID, entry.body) == {"section": section.plain()}
        assert body_of_plain(CxlProtocol.GUID, {"section": section.plain()}) == entry.body
        head = section.head
        assert head.agent_type == (put["agent_type"] if valid & 1 else None)
        found = {"agent_address": head.agent_address, "capability": head.capability}
        if isinstance(head, CxlProtocolPortHead):
            assert head.agent_address.to_bytes(8, "little").hex() == put["agent_address"]
            del found["agent_address"]
        for (name, value), bit in zip(found.items(), [2, 16] if len(found) == 2 else [16], strict=True):
            assert (value and value.encode().hex()) == (put[name] if valid & bit else None)
        if head.device_id is None:
            assert not valid & 4
        else:
            ours = head.device_id.plain() | {"slot": head.device_id.slot_number << 3}
            names = ["vendor_id", "device_id", "subsystem_vendor_id", "subsystem_id", "class_code", "slot"]
            assert {name: ours[name] for name in names} == {name: put[name] for name in names}
        serial = put["serial_lower"] | put["serial_upper"] << 32
        assert head.serial_number == (serial if valid & 8 else None)
        assert (head.dvsec_length, head.error_log_length) == (put["dvsec_length"], put["error_log_length"])
        assert (head.dvsec_valid, head.error_log_valid) == (bool(valid & 32), bool(valid & 64))
        assert b"".join(h.encode() for h in section.dvsec_header) + section.dvsec == bytes.fromhex(put["dvsec"])
        assert b"".join(h.encode() for h in section.error_log) + section.error_log_data == bytes.fromhex(
            put["error_log"]
        )
        for log in section.error_log if "error_log_fields" in put else ():
            names = ["uncorrectable_error_status", "uncorrectable_error_mask", "uncorrectable_error_severity"]
            names += ["correctable_error_status", "correctable_error_mask"]
            given = put["error_log_fields"]
            assert [int(getattr(log, name)) for name in names] == list(given.values())[:5]
            assert list(log.header_log) == given["header_log"]
            control = log.first_error_pointer | log.multiple_header_recording_capable << 9 | log.poison_enabled << 13
            assert control == given["cap_control"] & 0x223F


def render(section: CxlProtocol) -> Iterator[str | bytes]:
    """What 7.2 writes of a section (``drivers/firmware/efi/cper_cxl.c``)."""
    head = section.head
    yield "section_type: CXL Protocol Error"
    agent = head.agent_type
    known = agent is None or agent.known
    device = agent in {None, *DEVICES}  # it says nothing of a port's serial number
    port = agent == CxlAgentType.RESTRICTED_HOST_DOWNSTREAM_PORT or not known  # nor these of such a port
    if agent is not None:
        yield f"agent_type: {int(agent)}, {AGENT[agent] if known else 'unknown'}"
    where = head.agent_address
    if isinstance(where, int):
        yield f"rcrb_base_address: 0x{where:016x}"
    elif where is not None and known:
        yield f"agent_address: {where.segment:04x}:{where.bus:02x}:{where.device:02x}.{where.function:x}"
    if head.device_id is not None and not port:
        d = head.device_id
        yield f"slot: {d.slot_number}"
        yield f"vendor_id: 0x{d.vendor_id:04x}, device_id: 0x{d.device_id:04x}"
        yield f"sub_vendor_id: 0x{d.subsystem_vendor_id:04x}, sub_device_id: 0x{d.subsystem_id:04x}"
        yield f"class_code: {d.class_code:04x}"
    if head.serial_number is not None and device:
        yield f"lower_dw: 0x{head.serial_number & 0xFFFFFFFF:08x}, upper_dw: 0x{head.serial_number >> 32:08x}"
    if head.capability is not None and not port:
        yield head.capability.encode()
    if head.dvsec_valid:
        yield f"DVSEC length: 0x{head.dvsec_length:04x}"
        yield "CXL DVSEC:"
        yield section.dvsec_header[0].encode() + section.dvsec
    if head.error_log_valid and section.error_log:
        [log] = section.error_log
        yield f"Error log length: 0x{head.error_log_length:04x}"
        yield "CXL Error Log:"
        yield f"cxl_ras_uncor_status: 0x{int(log.uncorrectable_error_status):08x}"
        yield f"cxl_ras_uncor_mask: 0x{int(log.uncorrectable_error_mask):08x}"
        yield f"cxl_ras_uncor_severity: 0x{int(log.uncorrectable_error_severity):08x}"
        yield f"cxl_ras_cor_status: 0x{int(log.correctable_error_status):08x}"
        yield f"cxl_ras_cor_mask: 0x{int(log.correctable_error_mask):08x}"
        yield f"cap_control: 0x{int.from_bytes(log.encode()[20:24], 'little'):08x}"
        yield "Header Log Registers:"
        yield b"".join(word.to_bytes(4, "little") for word in log.header_log)


@pytest.mark.parametrize("vector", [name for name in READ if name != "cxlprot-log84"])
def test_our_reading_is_what_7_2_printed(vector):
    for (entry, _), lines in zip(entries(FAMILY, vector), printed(FAMILY, vector, "7.2"), strict=True):
        assert list(render(entry.section())) == items(lines)


def test_an_error_log_of_another_length_is_bytes():
    """7.2 is wrong: it prints 88 bytes where the length says 84 (N.2.13, CXL Error Log Length), then refuses them."""
    [(entry, put)] = entries(FAMILY, "cxlprot-log84")
    section = entry.section()
    assert section.error_log == ()
    assert section.error_log_data.hex() == put["error_log"]
    [lines] = printed(FAMILY, "cxlprot-log84", "7.2")
    assert items(lines)[-1] != bytes.fromhex(put["error_log"])[24:]
    assert any(
        "CXL CPER invalid protocol error log size (84)" in line or "size (84)" in line
        for line in logged("cxlprot-log84")
    )


def logged(vector):
    return family(FAMILY)[vector]["log"]["7.2"]


def test_names_of_errors_are_those_of_the_trace():
    words = {
        "Cache Data ECC Error": CxlCorrectableError.CACHE_DATA_ECC,
        "CRC Threshold Hit": CxlCorrectableError.CRC_THRESHOLD,
        "Received Cache Poison From Peer": CxlCorrectableError.CACHE_POISON_RECEIVED,
        "Received Error From Physical Layer": CxlCorrectableError.PHYSICAL_LAYER_ERROR,
        "Cache Data Parity Error": CxlUncorrectableError.CACHE_DATA_PARITY,
        "Memory Data Parity Error": CxlUncorrectableError.MEM_DATA_PARITY,
        "Memory Byte Enable Parity Error": CxlUncorrectableError.MEM_BYTE_ENABLE_PARITY,
        "Memory Data ECC Error": CxlUncorrectableError.MEM_DATA_ECC,
        "Received Poison From Peer": CxlUncorrectableError.POISON_RECEIVED,
    }
    for vector, name in [
        ("cxlprot-rp-corr", "correctable_error_status"),
        ("cxlprot-rp-recov", "uncorrectable_error_status"),
    ]:
        [(entry, _)] = entries(FAMILY, vector)
        [line] = family(FAMILY)[vector]["log"]["7.2 trace"]
        found = sum(words[text] for text in re.search(r"status(?:es)?[=:] ?'([^']*)'", line)[1].split(" | "))
        assert found == int(getattr(entry.section().error_log[0], name))


@pytest.mark.parametrize("vector", ["cxlprot-agent0", "cxlprot-agent1"])
def test_what_6_1_dumped_is_what_we_write(vector):
    [(entry, _)] = entries(FAMILY, vector)
    again = body_of_plain(CxlProtocol.GUID, plain_body(CxlProtocol.GUID, entry.body))
    assert dumped(printed(FAMILY, vector, "6.1")[0]) == entry.section().encode() == again


def test_a_head_that_ends_early_is_one_error():
    [(entry, _)] = entries(FAMILY, "cxlprot-len115")
    with pytest.raises(TruncatedError) as caught:
        read_section(CxlProtocol.GUID, entry.body)
    assert str(caught.value) == "CxlProtocol.head.reserved_2 at 0x70: 116 bytes needed, 115 given"
    assert any("section length is too small" in line for line in logged("cxlprot-len115"))


LENGTHS = 108
"""Of DVSEC and error log."""


@pytest.mark.parametrize(
    ("lengths", "size", "text"),
    [
        ((11, 0), 10, "head.dvsec_length at 0x6c: 11 bytes needed, 10 given"),
        ((10, 89), 98, "head.error_log_length at 0x6e: 89 bytes needed, 88 given"),
        ((0xFFFF, 0xFFFF), 0, "head.dvsec_length at 0x6c: 65535 bytes needed, 0 given"),
    ],
)
def test_a_length_that_the_body_contradicts_is_one_error(lengths, size, text):
    body = bytes(LENGTHS) + b"".join(n.to_bytes(2, "little") for n in lengths) + bytes(4 + size)
    with pytest.raises(TruncatedError) as caught:
        read_section(CxlProtocol.GUID, body)
    assert str(caught.value) == f"CxlProtocol.{text}"
    assert plain_body(CxlProtocol.GUID, body) == {"body": body.hex(), "error": f"CxlProtocol.{text}"}


@pytest.mark.parametrize("dvsec", [0, 9, 10, 40])
@pytest.mark.parametrize("log", [0, 87, 88, 89])
def test_what_is_too_short_for_its_structure_is_bytes(dvsec, log):
    tail = bytes(n % 251 + 1 for n in range(dvsec + log + 3))
    body = bytes(LENGTHS) + dvsec.to_bytes(2, "little") + log.to_bytes(2, "little") + bytes(4) + tail
    section = CxlProtocol.of_body(body)
    assert (len(section.dvsec_header), len(section.dvsec)) == ((1, dvsec - 10) if dvsec >= 10 else (0, dvsec))
    assert (len(section.error_log), len(section.error_log_data)) == ((1, 0) if log == 88 else (0, log))
    assert section.trailing == tail[-3:]
    assert section.encode() == body
    assert CxlProtocol.plain_of_body(body) == section.plain()
    assert CxlProtocol.of_plain(section.plain()) == section


def test_it_is_made_with_the_right_lengths():
    dvsec = DvsecHeader(vendor_id=0x1E98, length=60, dvsec_id=0)
    log = CxlRasCapability(uncorrectable_error_status=["poison_received"])
    made = CxlProtocol.of(agent_type="device", dvsec=(dvsec, bytes(50)), error_log=log)
    assert (made.head.dvsec_length, made.head.error_log_length) == (60, 88)
    assert (made.head.dvsec_valid, made.head.error_log_valid) == (True, True)
    assert type(made.head) is CxlProtocolHead
    assert CxlProtocol.of_body(made.encode()) == made
    port = CxlProtocol.of(agent_type="restricted_host_downstream_port", agent_address=0xA1B20000)
    assert type(port.head) is CxlProtocolPortHead
    assert port.encode()[16:24] == (0xA1B20000).to_bytes(8, "little")
    assert CxlProtocol.of_body(port.encode()) == port == CxlProtocol.of_plain(port.plain())
