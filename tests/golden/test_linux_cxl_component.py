"""CXL Component Events that arm64 kernels were given: what went in, what 7.2 traced of it, what 6.1 and 7.2 dumped."""

from __future__ import annotations

import re
from uuid import UUID

import pytest

from cper.cxl_component import CxlComponentDeviceId, CxlComponentHead, CxlEventHeader
from cper.cxl_dram import CxlDram, DramEvent
from cper.cxl_general_media import CxlGeneralMedia, GeneralMediaEvent
from cper.cxl_memory_module import CxlMemoryModule, MemoryModuleEvent
from cper.cxl_switch import CxlMldPort, CxlPhysicalSwitch, CxlVirtualSwitch
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import DecodeError, TruncatedError
from tests.golden.linux_sections import dumped, entries, family, printed

FAMILY = "cxl_component"
CLASSES = {
    "gmer": CxlGeneralMedia, "dram": CxlDram, "mm": CxlMemoryModule, "psw": CxlPhysicalSwitch,
    "vsw": CxlVirtualSwitch, "mld": CxlMldPort,
}  # fmt: skip
READ = sorted(family(FAMILY).keys() - {"cxl-gmer-len100"})
DECODED = {"gmer", "dram", "mm"}
TRACED = [n for n in READ if "7.2 trace" in family(FAMILY)[n]["log"] and n.split("-")[1] in DECODED]


def word(raw):
    return int.from_bytes(bytes.fromhex(raw), "little")


def the(vector):
    [(entry, put)] = entries(FAMILY, vector)
    return entry, put


@pytest.mark.parametrize("vector", READ)
def test_what_went_in_is_what_we_read(vector):
    entry, put = the(vector)
    section, valid = entry.section(), put["validation_bits"]
    assert type(section) is CLASSES[vector.split("-")[1]]
    assert section.encode() == entry.body
    assert plain_body(section.GUID, entry.body) == {"section": section.plain()}
    assert body_of_plain(section.GUID, {"section": section.plain()}) == entry.body
    head = section.head
    assert (head.length, head.event_log_valid) == (put["length"], bool(valid & 4))
    names = ["vendor_id", "device_id", "function", "device", "bus", "segment"]
    device = CxlComponentDeviceId(**{name: put[name] for name in names}, slot_number=put["slot"] >> 3)
    assert head.device_id == (device if valid & 1 else None)
    assert head.serial_number == (put["serial_lower"] | put["serial_upper"] << 32 if valid & 2 else None)
    if not valid & 4:
        assert (section.event, len(section.event_data)) == ((), put["length"] - 32)
        return
    [event] = section.event
    header = event if isinstance(event, CxlEventHeader) else event.header
    check_header(header, put["header"])
    if header is event:
        assert section.event_data.hex() == put["record"]["opaque"]
    else:
        assert section.event_data == b""
        CHECKS[type(event)](event, put["record"])


def check_header(header, put):
    flags = put["flags"]
    assert (header.record_length, header.severity) == (put["record_length"], flags & 3)
    names = ["permanent", "maintenance_needed", "performance_degraded", "hardware_replacement_needed"]
    names += ["maintenance_operation_subclass_valid", "ld_id_valid", "head_id_valid"]
    assert [getattr(header, name) for name in names] == [bool(flags & 4 << bit) for bit in range(7)]
    assert (header.handle, header.related_handle, header.timestamp) == (
        put["handle"], put["related_handle"], put["timestamp"],
    )  # fmt: skip
    assert (header.maintenance_operation_class, header.maintenance_operation_subclass) == (
        put["maintenance_op_class"], put["maintenance_op_sub_class"],
    )  # fmt: skip
    assert (header.ld_id, header.head_id) == (put["ld_id"], put["head_id"])


def check_media(event, put):
    assert event.physical_address | event.volatile | event.not_repairable << 1 == put["dpa"]
    assert event.physical_address % 64 == 0
    assert (event.descriptor, event.event_type, event.transaction_type) == (
        put["descriptor"], put["type"], put["transaction_type"],
    )  # fmt: skip
    valid = put["validity_flags"]
    assert (event.channel, event.rank) == (put["channel"] if valid & 1 else None, put["rank"] if valid & 2 else None)
    assert (event.threshold_flags, event.sub_type) == (put["cme_threshold_ev_flags"], put["sub_type"])
    return valid


def check_general_media(event, put):
    valid = check_media(event, put)
    assert event.device == (word(put["device"]) if valid & 4 else None)
    assert (event.component_id and event.component_id.hex()) == (put["component_id"] if valid & 8 else None)
    assert event.component_id_pldm == bool(valid & 16)
    assert event.corrected_error_count == word(put["cme_count"])


def check_dram(event, put):
    valid = check_media(event, put)
    given = put | {name: word(put[name]) for name in ("nibble_mask", "row")}
    given["component_id"] = bytes.fromhex(put["component_id"])
    given["correction_mask"] = tuple(word(put["correction_mask"][at : at + 16]) for at in range(0, 64, 16))
    names = ["nibble_mask", "bank_group", "bank", "row", "column", "correction_mask", "component_id", "", "sub_channel"]
    for bit, name in enumerate(names, 2):
        if name:
            assert getattr(event, name) == (given[name] if valid & 1 << bit else None), name
    assert event.component_id_pldm == bool(valid & 1 << 9)
    assert event.corrected_volatile_error_count == word(put["cvme_count"])


def check_memory_module(event, put):
    names = {"event_type": "device_event_type"}
    for name in ("health_status", "media_status", "life_used", "device_temperature", "dirty_shutdown_count"):
        names[name] = name
    for name in ("corrected_volatile_error_count", "corrected_persistent_error_count", "sub_type"):
        names[name] = name
    assert {name: getattr(event, name) for name in names} == {name: put[theirs] for name, theirs in names.items()}
    status = event.life_used_status | event.temperature_status << 2
    status |= event.corrected_volatile_warning << 4 | event.corrected_persistent_warning << 5
    assert status == put["additional_status"]
    assert event.component_id.hex() == put["component_id"]
    assert event.component_id_pldm


CHECKS = {GeneralMediaEvent: check_general_media, DramEvent: check_dram, MemoryModuleEvent: check_memory_module}

WORDS = {
    "UNCORRECTABLE_EVENT": "uncorrectable",
    "THRESHOLD_EVENT": "threshold",
    "REPLACEMENT_NEEDED": "hardware_replacement_needed",
    "Corrected Memory Errors in Multiple Media Components": "multiple_media_components",
    "Exceeded Programmable Threshold": "exceeded",
    "Invalid Config Data": "invalid_configuration_data",
}
"""What the trace calls differently."""


def traced(vector):
    """The trace's fields: text, numbers where it prints them so, and lists of words."""
    [line] = family(FAMILY)[vector]["log"]["7.2 trace"]
    found = re.findall(r"(\w+)=('[^']*'|.*?)(?= \w+=| : |$)", line)
    return {name: [w.strip() for w in text[1:-1].split("|")] if text[:1] == "'" else text for name, text in found}


def named(words):
    return {WORDS.get(w, w.lower().replace(" ", "_")) for w in words if w}


@pytest.mark.parametrize("vector", TRACED)
def test_our_reading_is_what_7_2_traced(vector):
    entry, _ = the(vector)
    section = entry.section()
    [event], found = section.event, traced(vector)
    header = event.header
    assert UUID(found["uuid"]) == section.GUID  # the record's UUID is the section type (N.2.14)
    assert header.severity.plain == found["log"].lower()
    assert header.permanent == ("PERMANENT_CONDITION" in found["flags"])
    numbers = [header.timestamp, header.record_length, header.maintenance_operation_class]
    assert numbers == [int(found[name]) for name in ("time", "len", "maint_op_class")]
    assert header.maintenance_operation_subclass == int(found["maint_op_sub_class"])
    hexadecimal = [header.handle, header.related_handle, header.ld_id, header.head_id]
    assert hexadecimal == [int(found[name], 16) for name in ("handle", "related_handle", "ld_id", "head_id")]
    assert event.component_id == bytes.fromhex(found["comp_id"])
    if isinstance(event, MemoryModuleEvent):
        assert {event.event_type.plain} == named(found["event_type"])
        assert {event.sub_type.plain} == named(found["event_sub_type"])
        assert set(event.health_status.plain) == named(found["health_status"])
        assert {event.media_status.plain} == named(found["media_status"])
        assert event.life_used_status.plain == found["as_life_used"].lower()
        assert event.temperature_status.plain == found["as_dev_temp"].lower()
        states = [event.corrected_volatile_warning, event.corrected_persistent_warning]
        assert states == [found[name] == "Warning" for name in ("as_cor_vol_err_cnt", "as_cor_per_err_cnt")]
        ours = [event.life_used, event.device_temperature, event.dirty_shutdown_count]
        ours += [event.corrected_volatile_error_count, event.corrected_persistent_error_count]
        names = ["life_used", "device_temp", "dirty_shutdown_cnt", "cor_vol_err_cnt", "cor_per_err_cnt"]
        assert ours == [int(found[name]) for name in names]
        return
    assert event.physical_address == int(found["dpa"], 16)
    assert event.volatile == ("VOLATILE" in found["dpa_flags"])
    assert set(event.descriptor.plain) == named(found["descriptor"])
    assert {event.event_type.plain} == named(found["type"])
    assert {event.sub_type.plain} == named(found["sub_type"])
    assert {event.transaction_type.plain} == named(found["transaction_type"])
    assert (event.channel, event.rank) == (int(found["channel"]), int(found["rank"]))
    assert set(event.threshold_flags.plain) == named(found["cme_threshold_ev_flags"])
    if isinstance(event, GeneralMediaEvent):
        assert event.device == int(found["device"], 16)
        if "threshold" in event.descriptor.plain:  # else 7.2 traces 0
            assert event.corrected_error_count == int(found["cme_count"])
        return
    assert event.nibble_mask == int(found["nibble_mask"], 16)
    ours = [event.bank_group, event.bank, event.row, event.column]
    assert ours == [int(found[name]) for name in ("bank_group", "bank", "row", "column")]
    assert b"".join(w.to_bytes(8, "little") for w in event.correction_mask) == bytes.fromhex(found["cor_mask"])
    assert event.sub_channel == int(found["sub_channel"])
    if vector == "cxl-dram":  # 7.2 is wrong: it zeroes the count of an event of type 1 (a value, 8.2.9.2.1.2) by `&`
        assert int(found["cvme_count"]) == 0 != event.corrected_volatile_error_count
    else:
        assert event.corrected_volatile_error_count == int(found["cvme_count"])


@pytest.mark.parametrize("vector", READ)
@pytest.mark.parametrize("kernel", ["6.1", "7.2"])
def test_what_kernels_dumped_is_what_we_write(vector, kernel):
    entry, _ = the(vector)
    log = family(FAMILY)[vector]["log"]
    if kernel not in log or not any("section type: unknown" in line for line in log[kernel]):
        return  # it decodes this one
    again = body_of_plain(entry.header.section_type, plain_body(entry.header.section_type, entry.body))
    assert dumped(printed(FAMILY, vector, kernel)[0]) == entry.section().encode() == again


@pytest.mark.parametrize(
    ("length", "size", "kind", "reason"),
    [
        (31, 144, DecodeError, "31 bytes, but the head alone has 32"),
        (145, 144, TruncatedError, "145 bytes needed, 144 given"),
        (0xFFFFFFFF, 32, TruncatedError, "4294967295 bytes needed, 32 given"),
    ],
)
@pytest.mark.parametrize("cls", CLASSES.values(), ids=lambda c: c.__name__)
def test_a_length_that_the_body_contradicts_is_one_error(cls, length, size, kind, reason):
    body = length.to_bytes(4, "little") + bytes(size - 4)
    with pytest.raises(kind) as caught:
        read_section(cls.GUID, body)
    assert str(caught.value) == f"{cls.__name__}.head.length at 0x0: {reason}"
    assert plain_body(cls.GUID, body) == {"body": body.hex(), "error": str(caught.value)}


def test_a_body_that_is_shorter_than_its_length_is_one_error():
    """7.2 is wrong: it does not look at the length and traces 44 bytes of what lies behind (N.2.14, Length)."""
    entry, put = the("cxl-gmer-len100")
    assert (len(entry.body), put["length"]) == (100, 144)
    with pytest.raises(TruncatedError, match="144 bytes needed, 100 given"):
        read_section(CxlGeneralMedia.GUID, entry.body)


@pytest.mark.parametrize("size", [0, 31, 32, 111, 112, 113, 200])
@pytest.mark.parametrize("valid", [0, 4])
@pytest.mark.parametrize("cls", CLASSES.values(), ids=lambda c: c.__name__)
def test_a_record_of_any_length_is_kept(cls, size, valid):
    behind = bytes(n % 255 + 1 for n in range(size + 5))
    body = (32 + size).to_bytes(4, "little") + valid.to_bytes(8, "little") + bytes(20) + behind
    section = cls.of_body(body)
    event = 32 if issubclass(cls, CxlPhysicalSwitch | CxlVirtualSwitch | CxlMldPort) else 112
    there = valid and size >= event
    assert (len(section.event), len(section.event_data)) == ((1, size - event) if there else (0, size))
    assert (section.encode(), section.trailing) == (body, behind[-5:])
    assert cls.plain_of_body(body) == section.plain()
    assert cls.of_plain(section.plain()) == section


def test_an_address_is_a_multiple_of_64():
    header = CxlEventHeader()
    made = CxlGeneralMedia.of(GeneralMediaEvent(header=header, physical_address=0x1000, volatile=True))
    assert made.encode()[64:72] == (0x1001).to_bytes(8, "little")
    assert made.head == CxlComponentHead(length=144, event_log_valid=True)
    with pytest.raises(ValueError, match="4097 is not a multiple of 64"):
        GeneralMediaEvent(header=header, physical_address=0x1001)
    with pytest.raises(ValueError, match="less than or equal"):
        GeneralMediaEvent(header=header, physical_address=1 << 64)


def test_a_temperature_has_a_sign():
    event = MemoryModuleEvent(header=CxlEventHeader(), device_temperature=-40)
    assert MemoryModuleEvent.decode(event.encode()).device_temperature == -40
    assert event.plain()["device_temperature"] == -40
    with pytest.raises(ValueError, match="less than or equal to 32767"):
        MemoryModuleEvent(header=CxlEventHeader(), device_temperature=1 << 15)
