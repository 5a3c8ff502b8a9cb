"""libcper's shape of a whole record (UEFI 2.10, N.2.1 and N.2.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from cper.common import Timestamp
from cper.libcper import arm_processor, devices, ia32x64_processor, links, processors
from cper.libcper.rules import (
    Rule,
    Shape,
    bits,
    number,
    number_of,
    numbers,
    of_base64,
    pair,
    to_base64,
    words,
)
from cper.plain import members, object_in, objects_in
from cper.record import NOTIFICATION_TYPES, Record, RecordHeader, SectionDescriptor
from cper.words import counted


class Type(NamedTuple):
    """How libcper calls a section type, and how its body becomes the object and is made of it."""

    name: str
    """``type`` of the descriptor."""
    key: str
    """The member that holds the section."""
    write: Callable[[bytes], dict[str, Any]]
    read: Callable[[dict[str, Any]], bytes]


def _whole(name: str, key: str, shape: Shape) -> Type:
    """A section that is one structure."""
    kind: Any = shape.kind
    return Type(name, key, lambda body: shape.write(kind.of_body(body)), lambda plain: shape.make(plain).encode())


def _component(what: str) -> Type:
    name = f"CXL {what} Component Error"
    return Type(name, "CxlComponent", links.write_cxl_component, links.read_cxl_component)


TYPES: dict[UUID, Type] = {
    UUID("9876ccad-47b4-4bdb-b65e-16f193c4f3db"): _whole(
        "Processor Generic", "GenericProcessor", processors.PROCESSOR_GENERIC
    ),
    UUID("dc3ea0b0-a144-4797-b95b-53fa242b6e1d"): Type(
        "IA32/X64", "Ia32x64Processor", ia32x64_processor.write_ia32x64, ia32x64_processor.read_ia32x64
    ),
    UUID("e19e3d16-bc11-11e4-9caa-c2051d5d46b0"): Type(
        "ARM", "ArmProcessor", arm_processor.write_arm, arm_processor.read_arm
    ),
    UUID("a5bc1114-6f64-4ede-b863-3e83ed7c83b1"): Type(
        "Platform Memory", "Memory", devices.write_memory, devices.read_memory
    ),
    UUID("61ec04fc-48e6-d813-25c9-8daa44750b12"): Type(
        "Platform Memory 2", "Memory2", devices.write_memory2, devices.read_memory2
    ),
    UUID("d995e954-bbc1-430f-ad91-b44dcb3c6f35"): _whole("PCIe", "Pcie", links.PCIE),
    UUID("81212a96-09ed-4996-9471-8d729c8e69ed"): Type(
        "Firmware Error Record Reference", "Firmware", devices.write_firmware, devices.read_firmware
    ),
    UUID("c5753963-3b84-4095-bf78-eddad3f9c9dd"): _whole("PCI/PCI-X Bus", "PciBus", devices.PCI_BUS),
    UUID("eb5e4685-ca66-4769-b6a2-26068b001326"): Type(
        "PCI Component/Device", "PciComponent", devices.write_pci_component, devices.read_pci_component
    ),
    UUID("5b51fef7-c79d-4434-8f1b-aa62de3e2c64"): _whole("DMAr Generic", "GenericDmar", devices.DMAR_GENERIC),
    UUID("71761d37-32b2-45cd-a7d0-b0fedd93e8cf"): _whole(
        "Intel VT for Directed I/O Specific DMAr", "VtdDmar", devices.DMAR_VTD
    ),
    UUID("036f84e1-7f37-428c-a79e-575fdfaa84ec"): _whole("IOMMU Specific DMAr", "IommuDmar", devices.DMAR_IOMMU),
    UUID("91335ef6-ebfb-4478-a6a6-88b728cf75d7"): Type(
        "CCIX PER Log Error", "CcixPer", links.write_ccix, links.read_ccix
    ),
    UUID("80b9efb4-52b5-4de3-a777-68784b771048"): Type(
        "CXL Protocol Error", "CxlProtocol", links.write_cxl_protocol, links.read_cxl_protocol
    ),
    UUID("fbcd0a77-c260-417f-85a9-088b1621eba6"): _component("General Media"),
    UUID("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624"): _component("DRAM"),
    UUID("fe927475-dd59-4339-a586-79bab113b774"): _component("Memory Module"),
    UUID("77cf9271-9c02-470b-9fe4-bc7b75f2da97"): _component("Physical Switch"),
    UUID("40d26425-3396-4c4d-a5da-3d47263af425"): _component("Virtual Switch"),
    UUID("8dc44363-0c96-4710-b7bf-04bb99534c3f"): _component("MLD Port"),
}
"""Section types that have an object of their own; the bodies of others are Base64 under ``Unknown``."""

_SEVERITIES = {0: "Recoverable", 1: "Fatal", 2: "Corrected", 3: "Informational"}
_NOTIFICATIONS = {
    "cmc": "CMC", "cpe": "CPE", "mce": "MCE", "pcie": "PCIe", "init": "INIT", "nmi": "NMI", "boot": "Boot",
    "dmar": "DMAr", "sea": "SEA", "sei": "SEI", "pei": "PEI", "cxl": "CXL Component",
}  # fmt: skip
_NOTIFICATION_NAMES = {guid: _NOTIFICATIONS[name] for name, guid in NOTIFICATION_TYPES.items()}
_FLAGS = {1: "HW_ERROR_FLAGS_RECOVERED", 2: "HW_ERROR_FLAGS_PREVERR", 4: "HW_ERROR_FLAGS_SIMULATED"}
_TIME = re.compile(r"(\d\d)(\d\d)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\+00:00")

_REVISION = Rule(
    "revision", "revision", lambda v: {"major": v >> 8, "minor": v & 0xFF},
    lambda p: number_of(p, "major") << 8 | number_of(p, "minor"),
)  # fmt: skip
_SEVERITY = Rule(
    "severity", "severity", lambda v: {"code": int(v), "name": _SEVERITIES.get(int(v), "Unknown")},
    lambda p: number_of(p, "code"),
)  # fmt: skip
_HEADER = Shape(
    RecordHeader,
    _REVISION,
    *numbers("section_count"),
    _SEVERITY,
    *numbers("record_length"),
    *[Rule(f"{n}ID", f"{n}_id", str, str) for n in ("platform", "partition", "creator")],
    Rule(
        "notificationType", "notification_type",
        lambda v: {"guid": str(v), "type": _NOTIFICATION_NAMES.get(v, "Unknown")},
        lambda p: str(members(p).get("guid")),
    ),
    *numbers("record_id"),
    pair("flags", "flags", _FLAGS, "Unknown"),
    number("persistenceInfo", "persistence_information"),
)  # fmt: skip
_DESCRIPTOR = Shape(
    SectionDescriptor,
    *numbers("section_offset", "section_length"),
    _REVISION,
    bits(
        "flags", "flags",
        ("primary", "containmentWarning", "reset", "errorThresholdExceeded", "resourceNotAccessible", "latentError",
         "propagated", "overflow"),
    ),
    Rule(
        "sectionType", "section_type", lambda v: {"data": str(v), "type": TYPES[v].name if v in TYPES else "Unknown"},
        lambda p: str(members(p).get("data")),
    ),
    Rule("fruID", "fru_id", str, str),
    words("fruText", "fru_text"),
    _SEVERITY,
)  # fmt: skip


def of_record(record: Record) -> dict[str, Any]:
    """The record in libcper's shape."""
    header = _HEADER.write(record.header)
    time = record.header.timestamp
    if time is not None:
        header["timestamp"] = (
            f"{time.century:02}{time.year:02}-{time.month:02}-{time.day:02}"
            f"T{time.hour:02}:{time.minute:02}:{time.second:02}+00:00"
        )
        header["timestampIsPrecise"] = time.precise
    return {
        "header": header,
        "sectionDescriptors": [_DESCRIPTOR.write(s.descriptor) for s in record.sections],
        "sections": [of_body(s.descriptor.section_type, s.body) for s in record.sections],
    }


def of_body(guid: UUID, body: bytes) -> dict[str, Any]:
    """A section in libcper's shape; in Base64 where it is of no type that libcper knows, or cannot be read."""
    known = TYPES.get(guid)
    if known is not None:
        try:
            return {known.key: known.write(body)}
        except ValueError:
            pass
    return {"Unknown": {"data": to_base64(body)}}


def to_record(plain: Mapping[str, Any]) -> Record:
    """The record that libcper's JSON describes, bodies back to back; its lengths are made anew.  Raises ValueError."""
    given = object_in(plain, "header")
    header = _HEADER.read(given)
    if "timestamp" in given:
        header["timestamp"] = _time(str(given["timestamp"]), given.get("timestampIsPrecise", False))
    items, bodies = objects_in(plain, "sectionDescriptors"), objects_in(plain, "sections")
    if len(items) != len(bodies):
        raise ValueError(f"{counted(len(items), 'descriptor')}, but {counted(len(bodies), 'section')}")
    sections = []
    for index, (item, section) in enumerate(zip(items, bodies, strict=True)):
        try:
            descriptor = _DESCRIPTOR.make(item)
            assert isinstance(descriptor, SectionDescriptor)
            sections.append((to_body(descriptor.section_type, section), descriptor))
        except ValueError as error:
            error.add_note(f"sections[{index}]")
            raise
    made = Record.of_bodies(sections)
    lengths = {"section_count": made.header.section_count, "record_length": made.header.record_length}
    return made._replace(header=RecordHeader.of_plain(header | lengths))


def to_body(guid: UUID, plain: Mapping[str, Any]) -> bytes:
    """The body that libcper's object of a section describes.  Raises ValueError."""
    known = TYPES.get(guid)
    if known is not None and known.key in plain:
        return known.read(object_in(plain, known.key))
    if "Unknown" not in plain:
        raise ValueError(f"'{known.key if known else 'Unknown'}' or 'Unknown' expected")
    return of_base64(object_in(plain, "Unknown").get("data"))


def _time(text: str, precise: Any) -> dict[str, Any]:
    found = _TIME.fullmatch(text)
    if found is None or not isinstance(precise, bool):
        raise ValueError(f"'timestamp': YYYY-MM-DDThh:mm:ss+00:00 expected, not {text!r}")
    names = ("century", "year", "month", "day", "hour", "minute", "second")
    return Timestamp.of_plain(dict(zip(names, map(int, found.groups()), strict=True)) | {"precise": precise}).plain()


__all__ = ["TYPES", "of_body", "of_record", "to_body", "to_record"]
