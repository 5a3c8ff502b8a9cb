"""libcper's shape of the ARM Processor Error section (UEFI 2.10, N.2.4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cper.arm_context import ArmContext
from cper.arm_error import ArmBusError, ArmCacheError, ArmTlbError
from cper.arm_processor import ArmErrorInformation, ArmProcessor, ArmProcessorHeader, ArmRunningState
from cper.arm_processor_types import ArmProcessor211
from cper.libcper.processors import COMMON, ERRORS, OPERATIONS, array, same
from cper.libcper.rules import RESERVED, Rule, Shape, bits, flag, number, number_of, numbers, of_base64, pair, to_base64
from cper.plain import members, object_in, objects_in
from cper.register_context import STEP
from cper.wire import Struct

_ARM_HEAD = Shape(
    ArmProcessorHeader,
    number("errorInfoNum", "error_information_count"),
    number("contextInfoNum", "context_information_count"),
    *numbers("section_length"),
    Rule(
        "errorAffinity", "affinity_level",
        lambda v: {"value": v, "type": "Vendor Defined" if v < 4 else "Reserved"}, lambda p: number_of(p, "value"),
    ),
    number("mpidrEl1", "mpidr"),
    Rule("affinity3", "mpidr", lambda v: v >> 32 & 0xFF, None),
    number("midrEl1", "midr"),
)  # fmt: skip
_ARM = [
    *COMMON,
    flag("corrected", "corrected"),
    flag("precisePC", "precise_pc"),
    flag("restartablePC", "restartable_pc"),
]
_ARM_CACHE = Shape(
    ArmCacheError,
    _ARM,
    pair("operation", "operation", OPERATIONS | {7: "Eviction", 8: "Snooping", 9: "Snooped", 10: "Management"}),
)
_ARM_TLB = Shape(
    ArmTlbError,
    _ARM,
    pair(
        "operation", "operation",
        OPERATIONS | {7: "Local Management Operation", 8: "External Management Operation"},
    ),
)  # fmt: skip
_ARM_BUS = Shape(
    ArmBusError,
    _ARM,
    pair("operation", "operation", OPERATIONS),
    pair(
        "participationType", "participation_type",
        {
            0: "Local Processor Originated Request", 1: "Local Processor Responded to Request",
            2: "Local Processor Observed", 3: "Generic",
        },
        "Unknown",
    ),
    flag("timedOut", "time_out"),
    pair(
        "addressSpace", "address_space",
        {0: "External Memory Access", 1: "Internal Memory Access", 3: "Device Memory Access"}, "Unknown",
    ),
    *numbers("memory_attributes"),
    pair("accessMode", "access_mode", {0: "Secure", 1: "Normal"}),
)  # fmt: skip
_ARM_SHAPES: dict[type[Struct], tuple[str, Shape]] = {
    ArmCacheError: ("cacheError", _ARM_CACHE),
    ArmTlbError: ("tlbError", _ARM_TLB),
    ArmBusError: ("busError", _ARM_BUS),
}
_ARM_INFORMATION = Shape(
    ArmErrorInformation,
    *numbers("version", "length"),
    Rule(
        "multipleError", "multiple_error",
        lambda v: {"value": v, "type": "Multiple Errors" if v else "Single Error"}, lambda p: number_of(p, "value"),
    ),
    bits("flags", "flags", ("firstErrorCaptured", "lastErrorCaptured", "propagated", "overflow")),
    *numbers("virtual_fault_address", "physical_fault_address"),
)  # fmt: skip
_ARM_CONTEXTS = dict(
    enumerate(
        (
            "AArch32 General Purpose Registers", "AArch32 EL1 Context Registers", "AArch32 EL2 Context Registers",
            "AArch32 Secure Context Registers", "AArch64 General Purpose Registers", "AArch64 EL1 Context Registers",
            "AArch64 EL2 Context Registers", "AArch64 EL3 Context Registers", "Miscellaneous System Register Structure",
        )
    )
)  # fmt: skip
_MISC = ("op2", "crm", "crn", "op1", "o0")
"""Slices of an MRS encoding as libcper calls them."""


def write_arm(
    body: bytes, cls: type[ArmProcessor] = ArmProcessor211, names: Mapping[int, str] = ERRORS
) -> dict[str, Any]:
    """ARM processor; ``cls`` and ``names``: how Type is numbered.  UEFI 2.11's way is libcper's."""
    section = cls.of_body(body)
    out = _ARM_HEAD.write(section.head)
    state = section.head.running_state
    if state is not None:
        word = int.from_bytes(state.encode()[:4], "little")
        out["running"] = state.running
        if not word >> 31:
            out["psciState"] = state.psci_state
    out["errorInfo"] = [_write_arm_error(i, names) for i in section.error_information]
    out["contextInfo"] = [_write_arm_context(c) for c in section.contexts]
    if section.head.vendor_information_valid and section.vendor_information:
        out["vendorSpecificInfo"] = {"data": to_base64(section.vendor_information)}
    return out


def _write_arm_error(information: ArmErrorInformation, names: Mapping[int, str]) -> dict[str, Any]:
    out = _ARM_INFORMATION.write(information)
    out["errorType"] = {"value": int(information.type), "name": names.get(int(information.type), RESERVED)}
    found: Any = information.error_information
    if type(found) in _ARM_SHAPES:
        key, shape = _ARM_SHAPES[type(found)]
        out["errorInformation"] = {key: shape.write(found)}
    return out


def _registers(kind: type[Struct]) -> Shape:
    return Shape(kind, same(kind))


def _write_arm_context(context: ArmContext) -> dict[str, Any]:
    value = int(context.head.register_context_type)
    out: dict[str, Any] = {
        "version": context.head.version,
        "registerContextType": {"value": value, "name": _ARM_CONTEXTS.get(value, "Unknown (Reserved)")},
        "registerArraySize": context.head.register_array_size,
    }
    if len(context.registers) == 1 and value < 8:
        out["registerArray"] = _registers(type(context.registers[0])).write(context.registers[0])
    elif context.registers and value == 8:
        first: Any = context.registers[0]
        out["registerArray"] = {"mrsEncoding": {n: getattr(first, n) for n in _MISC}, "value": first.value}
    else:
        out["registerArray"] = {"data": to_base64(array(context))}
    return out


def read_arm(plain: dict[str, Any]) -> bytes:
    """ARM processor."""
    more: dict[str, Any] = {"vendor_information_valid": "vendorSpecificInfo" in plain}
    if "running" in plain:
        word = bool(plain["running"]) | ("psciState" not in plain) << 31  # as it is written
        state = word.to_bytes(4, "little") + number_of(plain, "psciState", 0).to_bytes(8, "little")
        more["running_state"] = ArmRunningState.decode(state).plain()
    parts = []
    kinds = ArmProcessor211.KINDS["error_information"]
    for item in objects_in(plain, "errorInfo"):
        found = _ARM_INFORMATION.read(item) | {"type": number_of(object_in(item, "errorType"), "value")}
        own = members(item.get("errorInformation", {}))
        for key, shape in _ARM_SHAPES.values():
            if key in own:
                found["error_information"] = shape.read(own[key])
        parts.append(kinds.of_plain(found).encode())
    contexts = objects_in(plain, "contextInfo")
    parts += [_read_arm_context(item) for item in contexts]
    if "vendorSpecificInfo" in plain:
        parts.append(of_base64(object_in(plain, "vendorSpecificInfo").get("data")))
    rest = b"".join(parts)
    return _ARM_HEAD.make(plain, **more, section_length=ArmProcessorHeader.SIZE + len(rest)).encode() + rest


def _read_arm_context(item: dict[str, Any]) -> bytes:
    value = number_of(object_in(item, "registerContextType"), "value")
    registers = object_in(item, "registerArray")
    kind = ArmContext.REGISTERS.get(value)
    if kind is None or "data" in registers:
        array = of_base64(registers.get("data"))
    elif value == 8:
        array = kind.of_plain(
            {n: number_of(object_in(registers, "mrsEncoding"), n) for n in _MISC} | {"value": registers.get("value")}
        ).encode()
    else:
        array = _registers(kind).make(registers).encode()
    size = number_of(item, "registerArraySize")
    head = ArmContext.HEAD.of_plain(
        {"version": number_of(item, "version", 0), "register_context_type": value, "register_array_size": size}
    ).encode()
    return head + array + bytes(-(len(head) + len(array)) % STEP)


__all__ = ["read_arm", "write_arm"]
