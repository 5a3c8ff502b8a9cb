"""CXL Protocol Error section (UEFI 2.10, N.2.13); the registers of its error log are in ``cxl_registers``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import construct as c

from cper.cxl_registers import CxlRasCapability, DvsecHeader
from cper.framed import Beginning, FramedSection, Head, Remainder, Upto
from cper.pcie_registers import PcieCapability
from cper.wire import U8, U16, U64, Bits, OpenEnum, Reserved, Struct, Valid, ValidationBits, Word, u8


class CxlAgentType(OpenEnum):
    """What reported the error (CXL Agent Type)."""

    RESTRICTED_DEVICE = 0
    """CXL 1.1 device."""
    RESTRICTED_HOST_DOWNSTREAM_PORT = 1
    """CXL 1.1 host downstream port."""
    DEVICE = 2
    LOGICAL_DEVICE = 3
    FM_MANAGED_LOGICAL_DEVICE = 4
    ROOT_PORT = 5
    DOWNSTREAM_SWITCH_PORT = 6
    UPSTREAM_SWITCH_PORT = 7


class CxlAgentAddress(Struct, size=8):
    """Where the agent is (CXL Agent Address)."""

    function: U8
    device: U8
    bus: U8
    segment: U16
    reserved: ClassVar[Word] = Reserved(3)


class CxlAgentDeviceId(Struct, size=16):
    """Which agent (Device ID)."""

    vendor_id: U16
    device_id: U16
    subsystem_vendor_id: U16 = 0
    subsystem_id: U16 = 0
    class_code: U16 = 0
    """Base class (15:8), sub-class (7:0)."""
    slot: ClassVar[Word] = Word("H")
    slot_number: Annotated[int, Bits("slot", 3, 16)] = 0
    reserved: ClassVar[Word] = Reserved(4)


class CxlProtocolHead(Struct, size=116):
    """What precedes DVSEC and error log of a CXL Protocol Error section."""

    validation_bits: ClassVar[Word] = ValidationBits("Q")
    dvsec_valid: Annotated[bool, Bits("validation_bits", 5, 6)] = False
    """Whether the DVSEC is meaningful."""
    error_log_valid: Annotated[bool, Bits("validation_bits", 6, 7)] = False
    """Whether the error log is meaningful."""
    agent_type: Annotated[CxlAgentType | None, u8, Valid(0)] = None
    """What reported the error."""
    reserved: ClassVar[Word] = Reserved(7)
    agent_address: Annotated[CxlAgentAddress | None, Valid(1)] = None
    """Where it is."""
    device_id: Annotated[CxlAgentDeviceId | None, Valid(2)] = None
    """Which it is."""
    serial_number: Annotated[U64 | None, Valid(3)] = None
    """Device Serial Number: lower dword first on the wire."""
    capability: Annotated[PcieCapability | None, Valid(4)] = None
    """Its PCI Express capability structure."""
    dvsec_length: U16 = 0
    """Bytes of the DVSEC."""
    error_log_length: U16 = 0
    """Bytes of the error log, which follows the DVSEC."""
    reserved_2: ClassVar[Word] = Reserved(4)


class CxlProtocolPortHead(CxlProtocolHead, size=116):
    """The same of a CXL 1.1 host downstream port, which has no bus address."""

    agent_address: Annotated[U64 | None, Valid(1)] = None  # type: ignore[assignment]
    """Base of its RCRB."""


class _Head(Head):
    """The head that its own agent type asks for."""

    def __init__(self) -> None:
        super().__init__(CxlProtocolHead)
        self.reader = self

    def kind_of(self, body: bytes) -> type[Struct]:
        port = len(body) > 8 and body[0] & 1 and body[8] == CxlAgentType.RESTRICTED_HOST_DOWNSTREAM_PORT
        return CxlProtocolPortHead if port else CxlProtocolHead

    def of_plain(self, value: Mapping[str, Any], /) -> Struct:
        """The head that JSON described."""
        port = CxlAgentType.RESTRICTED_HOST_DOWNSTREAM_PORT
        asked = value.get("agent_type") in (port, port.plain)
        return (CxlProtocolPortHead if asked else CxlProtocolHead).of_plain(value)


_DVSEC = Beginning(DvsecHeader, CxlProtocolHead, "dvsec_length")
_ERROR_LOG = Beginning(CxlRasCapability, CxlProtocolHead, "error_log_length", whole=True)


@dataclass(frozen=True)
class CxlProtocol(FramedSection[CxlProtocolHead], guid="80b9efb4-52b5-4de3-a777-68784b771048"):
    """A protocol error that a CXL component found."""

    FRAME = c.Struct(
        "head" / _Head(),
        "dvsec_header" / _DVSEC,
        "dvsec" / Remainder(_DVSEC),
        "error_log" / _ERROR_LOG,
        "error_log_data" / Remainder(_ERROR_LOG),
        "trailing" / Upto(),
    )

    dvsec_header: tuple[DvsecHeader, ...] = ()
    """Which DVSEC, where there is one."""
    dvsec: bytes = b""
    """Its registers behind the header."""
    error_log: tuple[CxlRasCapability, ...] = ()
    """The RAS capability structure, where the error log is as long as that."""
    error_log_data: bytes = b""
    """The error log, where it is not."""
    trailing: bytes = b""
    """Bytes behind the error log."""

    @classmethod
    def of(
        cls,
        *,
        dvsec: tuple[DvsecHeader, bytes] | None = None,
        error_log: CxlRasCapability | None = None,
        **fields: Any,
    ) -> Self:
        """The section with these parts; ``fields`` are those of its head."""
        header, registers = ((dvsec[0],), dvsec[1]) if dvsec else ((), b"")
        logs = (error_log,) if error_log else ()
        length = sum(h.SIZE for h in header) + len(registers)
        counts = {
            "dvsec_length": length,
            "dvsec_valid": bool(header),
            "error_log_length": sum(log.SIZE for log in logs),
            "error_log_valid": bool(logs),
        }
        port = fields.get("agent_type") in (1, CxlAgentType.RESTRICTED_HOST_DOWNSTREAM_PORT.plain)
        head = (CxlProtocolPortHead if port else CxlProtocolHead)(**(counts | fields))
        return cls(head, header, registers, logs)
