"""libcper's shape of the sections about memory, PCI and DMA remapping (UEFI 2.10, N.2.5 to N.2.11)."""

from __future__ import annotations

from typing import Any

from cper.dmar import DmarGeneric
from cper.dmar_iommu import DmarIommu
from cper.dmar_vtd import DmarVtd, VtdFaultRecord
from cper.error_status import ErrorStatus
from cper.firmware_error_record import FirmwareErrorRecord, FirmwareErrorRecordGuidHead, FirmwareErrorRecordHead
from cper.libcper.rules import (
    RESERVED,
    Rule,
    Shape,
    base64_words,
    flag,
    hexadecimal,
    number,
    number_of,
    numbers,
    pair,
    sub,
    words,
)
from cper.memory import PlatformMemory
from cper.memory2 import MemoryStatus, PlatformMemory2
from cper.pci_bus import PciBus, PciBusCommand, PciBusId
from cper.pci_component import PciComponent, PciComponentHead, PciDeviceId, PciRegister
from cper.plain import members, object_in, objects_in

_ERROR_TYPES = {
    1: ("ERR_INTERNAL", "Error detected internal to the component."),
    4: ("ERR_MEM", "Storage error in memory (DRAM)."),
    5: ("ERR_TLB", "Storage error in TLB."),
    6: ("ERR_CACHE", "Storage error in cache."),
    7: ("ERR_FUNCTION", "Error in one or more functional units."),
    8: ("ERR_SELFTEST", "Component failed self test."),
    9: ("ERR_FLOW", "Overflow or underflow of internal queue."),
    16: ("ERR_BUS", "Error detected in the bus."),
    17: ("ERR_MAP", "Virtual address not found on IO-TLB or IO-PDIR."),
    18: ("ERR_IMPROPER", "Improper access error."),
    19: ("ERR_UNIMPL", "Access to a memory address which is not mapped to any component."),
    20: ("ERR_LOL", "Loss of Lockstep error."),
    21: ("ERR_RESPONSE", "Response not associated with a request."),
    22: ("ERR_PARITY", "Bus parity error (must also set the A, C, or D bits)."),
    23: ("ERR_PROTOCOL", "Detection of a protocol error."),
    24: ("ERR_ERROR", "Detection of a PATH_ERROR."),
    25: ("ERR_TIMEOUT", "Bus operation timeout."),
    26: ("ERR_POISONED", "A read was issued to data that has been poisoned."),
}
"""Error Types of an error status: libcper's names and its words."""


def described(key: str, field: str, names: dict[int, tuple[str, str]]) -> Rule:
    """A number with name and description, where it has them."""

    def out(value: int) -> dict[str, Any]:
        name, text = names.get(int(value), (RESERVED, ""))
        return {"value": int(value), **({"description": text} if text else {}), "name": name}

    return Rule(key, field, out, lambda plain: number_of(plain, "value"))


ERROR_STATUS = Shape(
    ErrorStatus,
    described("errorType", "type", _ERROR_TYPES),
    flag("addressSignal", "address"),
    flag("controlSignal", "control"),
    flag("dataSignal", "data"),
    flag("detectedByResponder", "responder"),
    flag("detectedByRequester", "requester"),
    flag("firstError", "first_error"),
    flag("overflowDroppedLogs", "overflow"),
)

MEMORY_ERRORS = dict(
    enumerate(
        (
            "Unknown", "No Error", "Single-bit ECC", "Multi-bit ECC", "Single-symbol ChipKill ECC",
            "Multi-symbol ChipKill ECC", "Master Abort", "Target Abort", "Parity Error", "Watchdog Timeout",
            "Invalid Address", "Mirror Broken", "Memory Sparing", "Scrub Corrected Error", "Scrub Uncorrected Error",
            "Physical Memory Map-out Event",
        )
    )
)  # fmt: skip

_MEMORY = Shape(
    PlatformMemory,
    sub("errorStatus", "error_status", ERROR_STATUS),
    pair("memoryErrorType", "error_type", MEMORY_ERRORS),
    number("cardSmbiosHandle", "card_handle"),
    number("moduleSmbiosHandle", "module_handle"),
    number("physicalAddress", "physical_address"),
    hexadecimal("physicalAddressHex", "physical_address", 16),
    *numbers("physical_address_mask", "node", "card"),
    number("moduleRank", "module"),
    *numbers("device", "row", "column", "bit_position", "requestor_id", "responder_id", "target_id"),
    number("rankNumber", "rank"),
)
_MEMORY2 = Shape(
    PlatformMemory2,
    sub("errorStatus", "error_status", ERROR_STATUS),
    pair("memoryErrorType", "error_type", MEMORY_ERRORS),
    number("physicalAddress", "physical_address"),
    hexadecimal("physicalAddressHex", "physical_address", 16),
    *numbers("physical_address_mask", "node", "card", "module", "device", "row", "column", "rank", "bit_position"),
    number("chipID", "chip_id"),
    *numbers("requestor_id", "responder_id", "target_id"),
    number("cardSmbiosHandle", "card_handle"),
    number("moduleSmbiosHandle", "module_handle"),
)


def _bank(section: PlatformMemory | PlatformMemory2) -> dict[str, Any]:
    if section.bank is not None:
        return {"bank": {"value": section.bank}}
    parts = {"address": section.bank_address, "group": section.bank_group}
    found = {key: value for key, value in parts.items() if value is not None}
    return {"bank": found} if found else {}


def _bank_fields(plain: dict[str, Any]) -> dict[str, int]:
    bank = members(plain.get("bank", {}))
    names = {"value": "bank", "address": "bank_address", "group": "bank_group"}
    return {names[key]: number_of(bank, key) for key in bank if key in names}


def write_memory(body: bytes) -> dict[str, Any]:
    """Platform Memory."""
    section = PlatformMemory.of_body(body)
    out = _bank(section)
    if section.row_high is not None:
        out["extended"] = {"rowBit16": bool(section.row_high & 1), "rowBit17": bool(section.row_high & 2)}
    if section.chip_id is not None:
        out.setdefault("extended", {})["chipIdentification"] = section.chip_id
    return out | _MEMORY.write(section)


def read_memory(plain: dict[str, Any]) -> bytes:
    """Platform Memory."""
    more: dict[str, Any] = _bank_fields(plain)
    if "extended" in plain:
        extended = object_in(plain, "extended")
        if "rowBit16" in extended or "rowBit17" in extended:
            more["row_high"] = bool(extended.get("rowBit16")) | bool(extended.get("rowBit17")) << 1
        if "chipIdentification" in extended:
            more["chip_id"] = number_of(extended, "chipIdentification")
    return _MEMORY.make(plain, **more).encode()


def write_memory2(body: bytes) -> dict[str, Any]:
    """Platform Memory 2."""
    section = PlatformMemory2.of_body(body)
    out = _MEMORY2.write(section) | _bank(section)
    if section.status is not None:
        value = section.status.encode()[0]
        out["status"] = {"value": value, "state": "Uncorrected" if section.status.uncorrected else "Corrected"}
    return out


def read_memory2(plain: dict[str, Any]) -> bytes:
    """Platform Memory 2."""
    more: dict[str, Any] = _bank_fields(plain)
    if "status" in plain:
        more["status"] = MemoryStatus.decode(number_of(plain["status"], "value", size=1).to_bytes(1, "little")).plain()
    return _MEMORY2.make(plain, **more).encode()


_BUS_ERRORS = dict(
    enumerate(
        (
            "Unknown/OEM Specific Error", "Data Parity Error", "System Error", "Master Abort",
            "Bus Timeout/No Device Present (No DEVSEL#)", "Master Data Parity Error", "Address Parity Error",
            "Command Parity Error",
        )
    )
)  # fmt: skip
PCI_BUS = Shape(
    PciBus,
    sub("errorStatus", "error_status", ERROR_STATUS),
    pair("errorType", "error_type", _BUS_ERRORS),
    sub("busID", "bus_id", Shape(PciBusId, number("busNumber", "bus"), number("segmentNumber", "segment"))),
    *numbers("bus_address", "bus_data"),
    Rule(
        "busCommandType", "bus_command", lambda v: "PCI-X" if v.pci_x else "PCI",
        lambda text: PciBusCommand(command=0, pci_x=text == "PCI-X").plain(),
    ),
    number("busRequestorID", "requestor_id"),
    hexadecimal("busRequestorIDHex", "requestor_id", 16),
    number("busCompleterID", "completer_id"),
    hexadecimal("busCompleterIDHex", "completer_id", 16),
    number("targetID", "target_id"),
)  # fmt: skip

_PCI_ID = Shape(
    PciDeviceId,
    *numbers("vendor_id", "device_id", "class_code"),
    number("functionNumber", "function"),
    number("deviceNumber", "device"),
    number("busNumber", "bus"),
    number("segmentNumber", "segment"),
)
_PCI_COMPONENT = Shape(
    PciComponentHead,
    sub("errorStatus", "error_status", ERROR_STATUS),
    sub("idInfo", "id_info", _PCI_ID),
    *numbers("memory_number"),
    number("ioNumber", "io_number"),
)
_REGISTER = Shape(PciRegister, number("firstHalf", "address"), number("secondHalf", "value"))


def write_pci_component(body: bytes) -> dict[str, Any]:
    """PCI component."""
    section = PciComponent.of_body(body)
    out = _PCI_COMPONENT.write(section.head)
    if section.head.registers_valid:
        out["registerDataPairs"] = [_REGISTER.write(r) for r in (*section.memory_registers, *section.io_registers)]
    return out


def read_pci_component(plain: dict[str, Any]) -> bytes:
    """PCI component."""
    head = _PCI_COMPONENT.make(plain, registers_valid="registerDataPairs" in plain)
    return head.encode() + b"".join(_REGISTER.make(r).encode() for r in objects_in(plain, "registerDataPairs"))


_FIRMWARE_TYPES = {
    0: "IPF SAL Error Record",
    1: "SOC Firmware Error Record (Type1 Legacy)",
    2: "SOC Firmware Error Record (Type2)",
}
_FIRMWARE = [
    pair("errorRecordType", "record_type", _FIRMWARE_TYPES),
    number("revision", "revision"),
    number("recordID", "record_identifier"),
]
_FIRMWARE_OLD = Shape(FirmwareErrorRecordHead, _FIRMWARE)
_FIRMWARE_NEW = Shape(FirmwareErrorRecordGuidHead, _FIRMWARE, words("recordIDGUID", "record_identifier_guid"))


def write_firmware(body: bytes) -> dict[str, Any]:
    """Firmware error record reference; libcper has no room for a vendor's data."""
    head = FirmwareErrorRecord.of_body(body).head
    return (_FIRMWARE_NEW if isinstance(head, FirmwareErrorRecordGuidHead) else _FIRMWARE_OLD).write(head)


def read_firmware(plain: dict[str, Any]) -> bytes:
    """Firmware error record reference."""
    return (_FIRMWARE_NEW if number_of(plain, "revision", 0) else _FIRMWARE_OLD).make(plain).encode()


_FAULT_REASONS = {
    1: ("DMT Entry Missing", "Domain mapping table entry is not present."),
    2: ("DMT Entry Invalid", "Invalid domain mapping table entry."),
    3: ("DMT Access Error", "DMAr unit's attempt to access the domain mapping table resulted in an error."),
    4: ("DMT Reserved Bit Invalid", "Reserved bit set to non-zero value in the domain mapping table."),
    5: ("DMA Address Out of Bounds", "DMA request to access an address beyond the device address width."),
    6: ("Invalid Read/Write", "Invalid read or write access."),
    7: ("Invalid Device Request", "Invalid device request."),
    8: ("ATT Access Error", "DMAr unit's attempt to access the address translation table resulted in an error."),
    9: ("ATT Reserved Bit Invalid", "Reserved bit set to non-zero value in the address translation table."),
    10: ("Illegal Command", "Illegal command error."),
    11: ("Command Buffer Access Error", "DMAr unit's attempt to access the command buffer resulted in an error."),
}
DMAR_GENERIC = Shape(
    DmarGeneric,
    number("requesterID", "requester_id"),
    *numbers("segment_number"),
    described("faultReason", "fault_reason", _FAULT_REASONS),
    pair("accessType", "access_type", {0: "DMA Write", 1: "DMA Read"}),
    pair("addressType", "address_type", {0: "Untranslated Request", 1: "Translation Request"}),
    pair("architectureType", "architecture_type", {1: "VT-d", 2: "IOMMU"}),
    *numbers("device_address"),
)
_LEVELS = [number(f"pageTableEntry_Level{n}", f"level_{n}_page_table_entry") for n in (6, 5, 4, 3, 2, 1)]
_VTD_FAULT = Shape(
    VtdFaultRecord,
    *numbers("fault_information", "source_identifier"),
    flag("privelegeModeRequested", "privilege_mode_requested"),
    flag("executePermissionRequested", "execute_permission_requested"),
    flag("pasidPresent", "pasid_present"),
    *numbers("fault_reason", "pasid_value", "address_type"),
    pair("type", "type", {0: "Write Request", 1: "Read/AtomicOp Request"}, "Unknown"),
)
DMAR_VTD = Shape(
    DmarVtd,
    *numbers("version", "revision"),
    Rule(
        "oemID", "oem_id", lambda text: int.from_bytes(text.encode("latin-1"), "little"),
        lambda value: number_of({"oemID": value}, "oemID", size=6)
        .to_bytes(6, "little").rstrip(b"\0").decode("latin-1"),
    ),
    number("capabilityRegister", "capability"),
    number("extendedCapabilityRegister", "extended_capability"),
    number("globalCommandRegister", "global_command"),
    number("globalStatusRegister", "global_status"),
    number("faultStatusRegister", "fault_status"),
    sub("faultRecord", "fault_record", _VTD_FAULT),
    base64_words("rootEntry", "root_entry", 2),
    base64_words("contextEntry", "context_entry", 2),
    _LEVELS,
)  # fmt: skip
DMAR_IOMMU = Shape(
    DmarIommu,
    *numbers("revision"),
    number("controlRegister", "control"),
    number("statusRegister", "status"),
    base64_words("eventLogEntry", "event_log_entry", 2),
    base64_words("deviceTableEntry", "device_table_entry", 4),
    _LEVELS,
)

__all__ = ["DMAR_GENERIC", "DMAR_IOMMU", "DMAR_VTD", "ERROR_STATUS", "PCI_BUS"]
