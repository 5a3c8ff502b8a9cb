"""libcper's shape of the sections about PCI Express, CCIX and CXL (UEFI 2.10, N.2.7, N.2.12 to N.2.14)."""

from __future__ import annotations

from typing import Any

from cper.ccix_per import CcixPer, CcixPerHead
from cper.cxl_component import CxlComponentDeviceId, CxlComponentHead
from cper.cxl_protocol import (
    CxlAgentAddress,
    CxlAgentDeviceId,
    CxlAgentType,
    CxlProtocol,
    CxlProtocolHead,
    CxlProtocolPortHead,
)
from cper.libcper.rules import (
    Rule,
    Shape,
    hexadecimal,
    number,
    number_of,
    numbers,
    of_base64,
    pair,
    sub,
    to_base64,
)
from cper.pcie import Pcie, PcieBridge, PcieCommandStatus, PcieDeviceId, PcieVersion
from cper.pcie_registers import PcieAer, PcieCapability
from cper.plain import members, object_in
from cper.wire import Struct
from cper.words import counted

_PORTS = {
    0: "PCI Express End Point",
    1: "Legacy PCI End Point Device",
    4: "Root Port",
    5: "Upstream Switch Port",
    6: "Downstream Switch Port",
    7: "PCI Express to PCI/PCI-X Bridge",
    8: "PCI/PCI-X Bridge to PCI Express Bridge",
    9: "Root Complex Integrated Endpoint Device",
    10: "Root Complex Event Collector",
}
_DEVICE = Shape(
    PcieDeviceId,
    *numbers("vendor_id", "device_id"),
    hexadecimal("deviceIDHex", "device_id", 0),
    *numbers("class_code"),
    number("functionNumber", "function"),
    number("deviceNumber", "device"),
    number("segmentNumber", "segment"),
    number("primaryOrDeviceBusNumber", "bus"),
    number("secondaryBusNumber", "secondary_bus"),
    *numbers("slot_number"),
)


def _capability(value: PcieCapability) -> dict[str, Any]:
    return {"data": to_base64(value.encode())}


def _flags(value: Any, suffix: str, make: Any, names: dict[str, str]) -> dict[str, Any]:
    """One member for each named bit."""
    return {
        f"{names.get(name, name)}_{suffix}": make(bool(value & mask))
        for name, mask in ((name.lower(), mask) for name, mask in value.names.items())
        if name != "undefined"
    }


_TLP = {"poisoned_tlp_received_status": "poisoned_tlp_received"}


def _aer(value: PcieAer) -> dict[str, Any]:
    status = _flags(value.uncorrectable_error_status, "status", bool, {})
    return {
        "data": to_base64(value.encode()),
        "capability_header": {
            "capability_id": value.capability_id,
            "capability_version": value.capability_version,
            "next_capability_offset": value.next_capability,
        },
        "uncorrectable_error_status": {_TLP.get(name, name): bit for name, bit in status.items()},
        "uncorrectable_error_mask": _flags(value.uncorrectable_error_mask, "mask", int, {}),
        "uncorrectable_error_severity": _flags(
            value.uncorrectable_error_severity, "severity", lambda bit: "Fatal" if bit else "NonFatal", {}
        ),
        "correctable_error_status": _flags(value.correctable_error_status, "status", bool, {}),
        "correctable_error_mask": _flags(value.correctable_error_mask, "mask", int, {}),
        "advanced_error_capabilities_and_control": {
            "first_error_pointer": value.first_error_pointer,
            "header_log_size": value.header_log_size,
            "logged_tlp_size": value.logged_tlp_size,
        },
        "root_error_status": {
            "err_cor_subclass": value.correctable_subclass,
            "advanced_error_interrupt_message_number": value.interrupt_message_number,
        },
        "error_source_id": {
            "err_cor_source_identification": value.correctable_source,
            "err_fatal_nonfatal_source_identification": value.uncorrectable_source,
        },
    }


def _registers(kind: type[Struct], key: str, field: str, out: Any) -> Rule:
    """A structure of registers, of which only the bytes are read back."""
    return Rule(key, field, out, lambda plain: _structure(kind, members(plain).get("data")))


def _structure(kind: type[Struct], text: Any) -> dict[str, Any]:
    """What JSON holds of a structure whose bytes come in Base64.  Raises ValueError."""
    data = of_base64(text)
    if len(data) != kind.SIZE:
        raise ValueError(f"{counted(len(data), 'byte')} given, it has {kind.SIZE}")
    return kind.decode(data).plain()


PCIE = Shape(
    Pcie,
    pair("portType", "port_type", _PORTS, "Unknown"),
    sub("version", "version", Shape(PcieVersion, numbers("minor", "major"))),
    sub(
        "commandStatus", "command_status",
        Shape(PcieCommandStatus, number("commandRegister", "command"), number("statusRegister", "status")),
    ),
    sub("deviceID", "device_id", _DEVICE),
    number("deviceSerialNumber", "serial_number"),
    sub(
        "bridgeControlStatus", "bridge",
        Shape(PcieBridge, number("secondaryStatusRegister", "secondary_status"), number("controlRegister", "control")),
    ),
    _registers(PcieCapability, "capabilityStructure", "capability", _capability),
    _registers(PcieAer, "aerInfo", "aer", _aer),
)  # fmt: skip

_CCIX = Shape(CcixPerHead, numbers("length"), number("ccixSourceID", "source_id"), number("ccixPortID", "port_id"))


def write_ccix(body: bytes) -> dict[str, Any]:
    """CCIX PER log."""
    section = CcixPer.of_body(body)
    log = {"ccixPERLog": to_base64(section.per_log)} if section.head.per_log_valid and section.per_log else {}
    return _CCIX.write(section.head) | log


def read_ccix(plain: dict[str, Any]) -> bytes:
    """CCIX PER log."""
    valid = "ccixPERLog" in plain
    log = of_base64(plain["ccixPERLog"]) if valid else b""
    return _CCIX.make(plain, per_log_valid=valid, length=CcixPerHead.SIZE + len(log)).encode() + log


_ADDRESS = Shape(
    CxlAgentAddress,
    number("functionNumber", "function"),
    number("deviceNumber", "device"),
    number("busNumber", "bus"),
    number("segmentNumber", "segment"),
)
_AGENT = Shape(
    CxlAgentDeviceId,
    *numbers("vendor_id", "device_id", "subsystem_vendor_id"),
    number("subsystemDeviceID", "subsystem_id"),
    *numbers("class_code", "slot_number"),
)
_AGENTS = {
    0: "CXL 1.1 Device",
    1: "CXL 1.1 Host Downstream Port",
    2: "CXL Device",
    3: "CXL Logical Device",
    4: "CXL Fabric Manager Managed Logical Device",
    5: "CXL Root Port",
    6: "CXL Downstream Switch Port",
    7: "CXL Upstream Switch Port",
}
_CXL = [
    pair("agentType", "agent_type", _AGENTS),
    sub("deviceID", "device_id", _AGENT),
    number("deviceSerial", "serial_number"),
    Rule(
        "capabilityStructure", "capability", lambda value: to_base64(value.encode()),
        lambda text: _structure(PcieCapability, text),
    ),
]  # fmt: skip
_CXL_DEVICE = Shape(CxlProtocolHead, _CXL, sub("cxlAgentAddress", "agent_address", _ADDRESS))
_CXL_PORT = Shape(
    CxlProtocolPortHead,
    _CXL,
    Rule("cxlAgentAddress", "agent_address", lambda value: {"value": value}, lambda plain: number_of(plain, "value")),
)


def write_cxl_protocol(body: bytes) -> dict[str, Any]:
    """CXL protocol error."""
    section = CxlProtocol.of_body(body)
    head = section.head
    out = (_CXL_PORT if isinstance(head, CxlProtocolPortHead) else _CXL_DEVICE).write(head)
    parts: dict[str, tuple[Any, ...]] = {
        "DVSEC": (*section.dvsec_header, section.dvsec), "ErrorLog": (*section.error_log, section.error_log_data),
    }  # fmt: skip
    raw = {n: b"".join(p if isinstance(p, bytes) else bytes(p.encode()) for p in found) for n, found in parts.items()}
    if head.dvsec_valid:
        out |= {"dvsecLength": head.dvsec_length, "cxlDVSEC": to_base64(raw["DVSEC"])}
    if head.error_log_valid:
        out |= {"errorLogLength": head.error_log_length, "cxlErrorLog": to_base64(raw["ErrorLog"])}
    return out


def read_cxl_protocol(plain: dict[str, Any]) -> bytes:
    """CXL protocol error."""
    dvsec = of_base64(plain.get("cxlDVSEC", ""))
    log = of_base64(plain.get("cxlErrorLog", ""))
    agent = plain.get("agentType")
    port = agent is not None and number_of(agent, "value") == CxlAgentType.RESTRICTED_HOST_DOWNSTREAM_PORT
    more = {
        "dvsec_valid": "cxlDVSEC" in plain, "error_log_valid": "cxlErrorLog" in plain,
        "dvsec_length": len(dvsec), "error_log_length": len(log),
    }  # fmt: skip
    return (_CXL_PORT if port else _CXL_DEVICE).make(plain, **more).encode() + dvsec + log


_COMPONENT_DEVICE = Shape(
    CxlComponentDeviceId,
    *numbers("vendor_id", "device_id"),
    number("functionNumber", "function"),
    number("deviceNumber", "device"),
    number("busNumber", "bus"),
    number("segmentNumber", "segment"),
    *numbers("slot_number"),
)
_COMPONENT = Shape(
    CxlComponentHead,
    numbers("length"),
    sub("deviceID", "device_id", _COMPONENT_DEVICE),
    number("deviceSerial", "serial_number"),
)


def write_cxl_component(body: bytes) -> dict[str, Any]:
    """CXL component event; the event record itself is bytes to libcper."""
    head = CxlComponentHead.decode(body)
    if not CxlComponentHead.SIZE <= head.length <= len(body):
        raise ValueError(f"{counted(head.length, 'byte')}, but {len(body)} are given")
    out = _COMPONENT.write(head)
    log = body[CxlComponentHead.SIZE : head.length]
    if head.event_log_valid and log:
        out["cxlComponentEventLog"] = {"data": to_base64(log)}
    return out


def read_cxl_component(plain: dict[str, Any]) -> bytes:
    """CXL component event."""
    valid = "cxlComponentEventLog" in plain
    log = of_base64(object_in(plain, "cxlComponentEventLog").get("data")) if valid else b""
    return _COMPONENT.make(plain, event_log_valid=valid, length=CxlComponentHead.SIZE + len(log)).encode() + log


__all__ = ["PCIE", "read_ccix", "read_cxl_component", "read_cxl_protocol", "write_ccix"]
