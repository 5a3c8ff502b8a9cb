"""PCI Express capability structure and AER extended capability, as CPER sections hold them (UEFI 2.10, N.2.7, N.2.13).

The registers are those of the PCI Express Base Specification, 7.5.3 and 7.8.4.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.wire import U8, U16, U32, Bits, OpenEnum, OpenFlags, Struct, Word, array, blob, u32


class PciePortType(OpenEnum):
    """Device or port type."""

    PCIE_ENDPOINT = 0
    LEGACY_PCI_ENDPOINT = 1
    ROOT_PORT = 4
    UPSTREAM_SWITCH_PORT = 5
    DOWNSTREAM_SWITCH_PORT = 6
    PCIE_TO_PCI_BRIDGE = 7
    PCI_TO_PCIE_BRIDGE = 8
    ROOT_COMPLEX_INTEGRATED_ENDPOINT = 9
    ROOT_COMPLEX_EVENT_COLLECTOR = 10


class PcieCapability(Struct, size=60):
    """PCI Express capability structure (7.5.3)."""

    capability_id: U8 = 0x10
    next_capability: U8 = 0
    """Offset in configuration space; 0: it is the last."""
    capabilities: ClassVar[Word] = Word("H")
    version: Annotated[int, Bits("capabilities", 0, 4)] = 2
    device_port_type: Annotated[PciePortType, Bits("capabilities", 4, 8)] = PciePortType.PCIE_ENDPOINT
    slot_implemented: Annotated[bool, Bits("capabilities", 8, 9)] = False
    interrupt_message_number: Annotated[int, Bits("capabilities", 9, 14)] = 0
    flit_mode_supported: Annotated[bool, Bits("capabilities", 15, 16)] = False
    device_capabilities: U32 = 0
    device_control: U16 = 0
    device_status: U16 = 0
    link_capabilities: U32 = 0
    link_control: U16 = 0
    link_status: U16 = 0
    slot_capabilities: U32 = 0
    slot_control: U16 = 0
    slot_status: U16 = 0
    root_control: U16 = 0
    root_capabilities: U16 = 0
    root_status: U32 = 0
    device_capabilities_2: U32 = 0
    device_control_2: U16 = 0
    device_status_2: U16 = 0
    link_capabilities_2: U32 = 0
    link_control_2: U16 = 0
    link_status_2: U16 = 0
    slot_capabilities_2: U32 = 0
    slot_control_2: U16 = 0
    slot_status_2: U16 = 0


class UncorrectableError(OpenFlags):
    """Bits of the uncorrectable error status, mask and severity registers (7.8.4.2)."""

    UNDEFINED = 1 << 0
    DATA_LINK_PROTOCOL_ERROR = 1 << 4
    SURPRISE_DOWN_ERROR = 1 << 5
    POISONED_TLP_RECEIVED = 1 << 12
    FLOW_CONTROL_PROTOCOL_ERROR = 1 << 13
    COMPLETION_TIMEOUT = 1 << 14
    COMPLETER_ABORT = 1 << 15
    UNEXPECTED_COMPLETION = 1 << 16
    RECEIVER_OVERFLOW = 1 << 17
    MALFORMED_TLP = 1 << 18
    ECRC_ERROR = 1 << 19
    UNSUPPORTED_REQUEST_ERROR = 1 << 20
    ACS_VIOLATION = 1 << 21
    UNCORRECTABLE_INTERNAL_ERROR = 1 << 22
    MC_BLOCKED_TLP = 1 << 23
    ATOMICOP_EGRESS_BLOCKED = 1 << 24
    TLP_PREFIX_BLOCKED_ERROR = 1 << 25
    POISONED_TLP_EGRESS_BLOCKED = 1 << 26
    DMWR_REQUEST_EGRESS_BLOCKED = 1 << 27
    IDE_CHECK_FAILED = 1 << 28
    MISROUTED_IDE_TLP = 1 << 29
    PCRC_CHECK_FAILED = 1 << 30
    TLP_TRANSLATION_EGRESS_BLOCKED = 1 << 31


class CorrectableError(OpenFlags):
    """Bits of the correctable error status and mask registers (7.8.4.5)."""

    RECEIVER_ERROR = 1 << 0
    BAD_TLP = 1 << 6
    BAD_DLLP = 1 << 7
    REPLAY_NUM_ROLLOVER = 1 << 8
    REPLAY_TIMER_TIMEOUT = 1 << 12
    ADVISORY_NON_FATAL_ERROR = 1 << 13
    CORRECTED_INTERNAL_ERROR = 1 << 14
    HEADER_LOG_OVERFLOW = 1 << 15


class RootErrorCommand(OpenFlags):
    """Bits of the root error command register (7.8.4.9)."""

    CORRECTABLE_ERROR_REPORTING_ENABLE = 1 << 0
    NON_FATAL_ERROR_REPORTING_ENABLE = 1 << 1
    FATAL_ERROR_REPORTING_ENABLE = 1 << 2


class PcieAer(Struct, size=96):
    """Advanced Error Reporting extended capability (7.8.4)."""

    capability_id: U16 = 1
    capability: ClassVar[Word] = Word("H")
    capability_version: Annotated[int, Bits("capability", 0, 4)] = 2
    next_capability: Annotated[int, Bits("capability", 4, 16)] = 0
    """Offset in configuration space; 0: it is the last."""
    uncorrectable_error_status: Annotated[UncorrectableError, u32] = UncorrectableError(0)
    uncorrectable_error_mask: Annotated[UncorrectableError, u32] = UncorrectableError(0)
    uncorrectable_error_severity: Annotated[UncorrectableError, u32] = UncorrectableError(0)
    """Set: reported as fatal."""
    correctable_error_status: Annotated[CorrectableError, u32] = CorrectableError(0)
    correctable_error_mask: Annotated[CorrectableError, u32] = CorrectableError(0)
    capabilities_and_control: ClassVar[Word] = Word("I")
    first_error_pointer: Annotated[int, Bits("capabilities_and_control", 0, 5)] = 0
    """Bit of the uncorrectable error that was reported first."""
    ecrc_generation_capable: Annotated[bool, Bits("capabilities_and_control", 5, 6)] = False
    ecrc_generation_enable: Annotated[bool, Bits("capabilities_and_control", 6, 7)] = False
    ecrc_check_capable: Annotated[bool, Bits("capabilities_and_control", 7, 8)] = False
    ecrc_check_enable: Annotated[bool, Bits("capabilities_and_control", 8, 9)] = False
    multiple_header_recording_capable: Annotated[bool, Bits("capabilities_and_control", 9, 10)] = False
    multiple_header_recording_enable: Annotated[bool, Bits("capabilities_and_control", 10, 11)] = False
    tlp_prefix_log_present: Annotated[bool, Bits("capabilities_and_control", 11, 12)] = False
    completion_timeout_log_capable: Annotated[bool, Bits("capabilities_and_control", 12, 13)] = False
    header_log_size: Annotated[int, Bits("capabilities_and_control", 13, 18)] = 0
    logged_tlp_was_flit_mode: Annotated[bool, Bits("capabilities_and_control", 18, 19)] = False
    logged_tlp_size: Annotated[int, Bits("capabilities_and_control", 19, 24)] = 0
    header_log: Annotated[tuple[int, ...], array("I", 4)] = (0, 0, 0, 0)
    """First four dwords of the TLP header of the first error."""
    root_error_command: Annotated[RootErrorCommand, u32] = RootErrorCommand(0)
    root_error_status: ClassVar[Word] = Word("I")
    correctable_received: Annotated[bool, Bits("root_error_status", 0, 1)] = False
    multiple_correctable_received: Annotated[bool, Bits("root_error_status", 1, 2)] = False
    uncorrectable_received: Annotated[bool, Bits("root_error_status", 2, 3)] = False
    multiple_uncorrectable_received: Annotated[bool, Bits("root_error_status", 3, 4)] = False
    first_uncorrectable_fatal: Annotated[bool, Bits("root_error_status", 4, 5)] = False
    non_fatal_received: Annotated[bool, Bits("root_error_status", 5, 6)] = False
    fatal_received: Annotated[bool, Bits("root_error_status", 6, 7)] = False
    correctable_subclass: Annotated[int, Bits("root_error_status", 7, 9)] = 0
    interrupt_message_number: Annotated[int, Bits("root_error_status", 27, 32)] = 0
    error_source_identification: ClassVar[Word] = Word("I")
    correctable_source: Annotated[int, Bits("error_source_identification", 0, 16)] = 0
    """Requester id: bus (15:8), device (7:3), function (2:0)."""
    uncorrectable_source: Annotated[int, Bits("error_source_identification", 16, 32)] = 0
    """Requester id."""
    tlp_prefix_log: Annotated[bytes, blob(40)] = bytes(40)
    """TLP prefixes (16 bytes), or in flit mode the rest of the TLP header."""
