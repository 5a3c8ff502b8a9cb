"""Arm RAS node, NVIDIA and Ampere sections as libcper reads them, all fields different (fixtures/libcper)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from uuid import UUID

import pytest

from cper.ampere import AmpereBmc
from cper.arm_ras import (
    ArmRas,
    ArmRasComponentType,
    ArmRasIidrType,
    ArmRasInstanceFormat,
    ArmRasLocalInstance,
    ArmRasOtherType,
    ArmRasPeInstance,
    ArmRasPeType,
    ArmRasPhysicalInstance,
    ArmRasTypeFormat,
)
from cper.arm_ras_auxiliary import KEYS
from cper.nvidia import Nvidia, NvidiaRegister
from cper.nvidia_event import FORMATS, NvidiaEventSource
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import DecodeError, TruncatedError, WireError

FILE = Path(__file__).parents[2] / "fixtures" / "libcper" / "arm_ras_nvidia.json"
VECTORS = json.loads(FILE.read_text())
ARM_RAS = [name for name in VECTORS if name.startswith("arm-ras")]
EVENTS = [name for name in VECTORS if name.startswith("nvidia-event")]


def vector(name):
    """Our reading, and libcper's."""
    guid, body = UUID(VECTORS[name]["section_type"]), bytes.fromhex(VECTORS[name]["body"])
    section = read_section(guid, body)
    assert section.encode() == body
    assert plain_body(guid, body) == {"section": section.plain()}
    assert body_of_plain(guid, json.loads(json.dumps({"section": section.plain()}))) == body
    [theirs] = VECTORS[name]["libcper"].values()
    return section, theirs


def hexadecimal(members):
    return [int(value, 16) for value in members.values()]


@pytest.mark.parametrize("name", ARM_RAS)
def test_an_arm_ras_node_is_what_libcper_reads(name):
    section, theirs = vector(name)
    assert type(section) is ArmRas
    head = section.head
    formats = (head.ip_instance_format, head.ip_type_format)
    assert (head.revision, head.component_type, *formats) == (
        theirs["revision"], theirs["componentType"]["raw"], theirs["ipInstanceFormat"]["raw"],
        theirs["ipTypeFormat"]["raw"],
    )  # fmt: skip
    assert section.user_data.value == theirs["userData"]
    ours = [value for key, value in section.ip_instance if key != "residue"]
    assert ours == hexadecimal(theirs["ipInstance"])
    if not isinstance(section.ip_type, ArmRasOtherType):
        assert [value for key, value in section.ip_type if key != "residue"] == hexadecimal(theirs["ipType"])
    for record, other in zip(section.error_records, theirs["errorSyndromes"], strict=True):
        assert [record.error_record_index, record.architecture_revision, record.architecture_version] == list(
            other.values()
        )[:3]
        registers = [value for key, value in record if key in {"fr", "ctlr", "status", "addr"} or key[:4] == "misc"]
        assert registers[: len(other) - 3] == [int(value, 16) for value in list(other.values())[3:]]
    [auxiliary] = section.auxiliary
    spaces = theirs["auxData"]["contexts"]
    for space, other in zip(auxiliary.address_spaces, spaces, strict=True):
        local = other["flags"]["addressSpaceIdentifierScope"] == "LocalAddressSpace"
        assert (space.head.local, space.head.address_space_identifier) == (
            local, other.get("addressSpaceIdentifier", 0),
        )  # fmt: skip
        assert [[r.address, r.value] for r in space.registers] == [hexadecimal(r) for r in other["registers"]]
    for pair, other in zip(auxiliary.key_value_pairs, theirs["auxData"]["keyValuePairs"], strict=True):
        assert pair.key == UUID(other["key"])
        if pair.key == KEYS["mpam_partid"]:
            assert pair.value & 0xFFFF == other["mpamPartId"]
        else:
            assert pair.value == int(other["value"], 16)


def test_each_form_of_an_arm_ras_node_was_met():
    found = [vector(name)[0] for name in ARM_RAS]
    assert {type(s.ip_instance) for s in found} == {ArmRasPeInstance, ArmRasPhysicalInstance, ArmRasLocalInstance}
    assert {type(s.ip_type) for s in found} == {ArmRasPeType, ArmRasIidrType, ArmRasOtherType}
    assert {len(s.gap) for s in found} == {0, 8}


def test_what_libcper_calls_the_formats():
    theirs = [vector(name)[1] for name in ARM_RAS]
    instances = {t["ipInstanceFormat"]["raw"]: t["ipInstanceFormat"]["value"] for t in theirs}
    assert instances == {0: "PE", 1: "SystemPhysicalAddress", 2: "LocalAddressIdentifier"}
    assert [m.name for m in ArmRasInstanceFormat][:3] == ["PE", "SYSTEM_PHYSICAL_ADDRESS", "LOCAL_ADDRESS"]
    types = {t["ipTypeFormat"]["raw"]: t["ipTypeFormat"].get("value") for t in theirs}
    assert types == {0: "PE", 1: "SMMU_IIDR", 255: None}
    assert [ArmRasTypeFormat(n).name for n in types] == ["PE", "SMMU_IIDR", "INVALID"]
    assert theirs[0]["componentType"] == {"raw": ArmRasComponentType.SMMU, "value": "SMMUErrorNode"}


def test_nvidia_is_what_libcper_reads():
    section, theirs = vector("nvidia")
    head = section.head
    assert (head.signature, head.error_type, head.error_instance, head.severity, head.socket) == (
        theirs["signature"], theirs["errorType"], theirs["errorInstance"], theirs["severity"]["code"],
        theirs["socket"],
    )  # fmt: skip
    assert (head.register_count, head.instance_base) == (theirs["registerCount"], theirs["instanceBase"])
    assert [{"address": r.address, "value": r.value} for r in section.registers] == theirs["registers"]
    made = Nvidia.of("X", [NvidiaRegister(address=1, value=2)])
    assert (made.head.register_count, Nvidia.of_body(made.encode())) == (1, made)


@pytest.mark.parametrize("name", EVENTS)
def test_an_nvidia_event_is_what_libcper_reads(name):
    section, theirs = vector(name)
    head, other = section.head, theirs["eventHeader"]
    assert (head.signature, head.event_version) == (other["signature"], other["version"])
    assert head.source_device_type.name == other["sourceDeviceType"]
    assert [head.event_type, head.event_subtype, head.event_link_id] == [
        int(other[key], 16) for key in ("type", "subtype", "linkId")
    ]
    [information] = section.information
    assert f"{information.head.major}.{information.head.minor}" == theirs["eventInfo"]["version"]
    if head.source_device_type == NvidiaEventSource.CPU:
        [cpu], other = information.cpu, theirs["eventInfo"]["cpu"]
        assert (cpu.socket_number, cpu.instance_base) == (other["SocketNum"], int(other["InstanceBase"], 16))
        assert list(cpu.ecid) == [int(other[f"Ecid{n}"], 16) for n in range(1, 5)]
    else:
        [gpu], other = information.gpu, theirs["eventInfo"]["gpu"]
        assert (gpu.source_partition, gpu.source_sub_partition) == (
            other["SourcePartition"], other["SourceSubPartition"],
        )  # fmt: skip
        assert gpu.pdi == int(other["Pdi"].replace(":", ""), 16)
    for context, other in zip(section.contexts, theirs["eventContexts"], strict=True):
        found = context.head
        assert (found.context_version, found.data_format_version) == (other["version"], other["dataFormatVersion"])
        assert (found.data_format_type, found.data_size) == (int(other["dataFormatType"], 16), other["dataSize"])
        [data] = other["data"].values()
        if found.data_format_type not in FORMATS:
            assert context.data[: found.data_size].hex() == data
            continue
        [values] = data.values()
        assert [[v for k, v in one if k != "residue"] for one in context.values] == [hexadecimal(one) for one in values]


def test_ampere_is_what_libcper_reads():
    section, theirs = vector("ampere-bmc")
    assert type(section) is AmpereBmc
    assert list(section.head.plain().values()) == list(theirs.values())
    assert len(section.payload) == 24


def changed(name, at, raw):
    body = bytearray(bytes.fromhex(VECTORS[name]["body"]))
    body[at : at + len(raw)] = raw
    return bytes(body)


SHORT, WRONG = TruncatedError, DecodeError


@pytest.mark.parametrize(
    ("name", "at", "raw", "kind", "text"),
    [
        ("arm-ras-pe", 8, struct.pack("<I", 9), SHORT, "head.error_syndrome_count at 0x8: 9 error_records"),
        ("arm-ras-pe", 12, struct.pack("<H", 79), WRONG, "head.error_syndrome_offset at 0xc: 79 lies in what"),
        ("arm-ras-pe", 12, struct.pack("<H", 999), SHORT, "head.error_syndrome_offset at 0xc: 999 bytes needed"),
        ("arm-ras-pe", 14, struct.pack("<H", 100), WRONG, "head.auxiliary_data_offset at 0xe: 100 lies in what"),
        ("arm-ras-pe", 228, struct.pack("<I", 15), WRONG, "auxiliary[0].head.auxiliary_data_size at 0xe4: 15 bytes"),
        ("arm-ras-pe", 228, struct.pack("<I", 999), SHORT, "auxiliary[0].head.auxiliary_data_size at 0xe4: 999"),
        ("arm-ras-pe", 226, struct.pack("<H", 4), SHORT, "auxiliary[0].address_spaces[2].head.length"),
        ("nvidia", 22, b"\3", SHORT, "head.register_count at 0x16: 3 registers need 48 bytes, 32 given"),
        ("nvidia-event-cpu", 34, b"\2", WRONG, "information[0].head.info_size at 0x22: 2 bytes"),
        ("nvidia-event-cpu", 64, b"\xff", SHORT, "contexts[0].head.context_size at 0x40: 255 bytes"),
        ("nvidia-event-cpu", 76, b"\x21", SHORT, "contexts[0].head.data_size at 0x4c: 33 bytes"),
    ],
)  # fmt: skip
def test_what_the_head_contradicts_is_one_error(name, at, raw, kind, text):
    guid, body = UUID(VECTORS[name]["section_type"]), changed(name, at, raw)
    with pytest.raises(WireError) as caught:
        read_section(guid, body)
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert plain_body(guid, body) == {"body": body.hex(), "error": str(caught.value)}
