"""libcper's shape of the sections about processors (UEFI 2.10, N.2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from cper import ia32x64
from cper.arm_context import ArmContext
from cper.arm_error import ArmBusError, ArmCacheError, ArmTlbError
from cper.arm_processor import ArmErrorInformation, ArmProcessor, ArmProcessorHeader, ArmRunningState
from cper.arm_processor_types import ArmProcessor211
from cper.ia32x64 import CpuId, Ia32X64Head, Ia32X64Processor
from cper.ia32x64_check import BusCheck, CacheCheck, MsCheck, TlbCheck
from cper.ia32x64_context import Ia32Registers, ProcessorContext, X64Registers
from cper.libcper.rules import (
    RESERVED,
    Rule,
    Shape,
    bits,
    flag,
    number,
    number_of,
    numbers,
    of_base64,
    pair,
    sub,
    to_base64,
    words,
)
from cper.plain import members, object_in, objects_in
from cper.processor_generic import ProcessorGeneric
from cper.register_context import STEP
from cper.wire import Struct

_ERRORS = {1: "Cache Error", 2: "TLB Error", 4: "Bus Error", 8: "Micro-Architectural Error"}
PROCESSOR_GENERIC = Shape(
    ProcessorGeneric,
    pair("processorType", "processor_type", {0: "IA32/X64", 1: "IA64", 2: "ARM"}),
    pair("processorISA", "processor_isa", {0: "IA32", 1: "IA64", 2: "X64", 3: "ARM A32/T32", 4: "ARM A64"}),
    pair("errorType", "error_type", {0: "Unknown", **_ERRORS}),
    pair(
        "operation", "operation",
        {0: "Unknown or Generic", 1: "Data Read", 2: "Data Write", 3: "Instruction Execution"},
    ),
    bits("flags", "flags", ("restartable", "preciseIP", "overflow", "corrected")),
    *numbers("level", "cpu_version_info"),
    words("cpuBrandString", "cpu_brand_string"),
    *numbers("processor_id", "target_address", "requestor_id", "responder_id", "instruction_ip"),
)  # fmt: skip

_TRANSACTIONS = {0: "Instruction", 1: "Data Access", 2: "Generic"}
_OPERATIONS = dict(
    enumerate(
        ("Generic Error", "Generic Read", "Generic Write", "Data Read", "Data Write", "Instruction Fetch", "Prefetch")
    )
)
_COMMON = [
    pair("transactionType", "transaction_type", _TRANSACTIONS),
    number("level", "level"),
    flag("processorContextCorrupt", "context_corrupt"),
]
_X86 = [
    *_COMMON,
    flag("uncorrected", "uncorrected"),
    flag("preciseIP", "precise_ip"),
    flag("restartableIP", "restartable_ip"),
    flag("overflow", "overflow"),
]
_CACHE_CHECK = Shape(CacheCheck, _X86, pair("operation", "operation", _OPERATIONS | {7: "Eviction", 8: "Snoop"}))
_TLB_CHECK = Shape(TlbCheck, _X86, pair("operation", "operation", _OPERATIONS))
_BUS_CHECK = Shape(
    BusCheck,
    _X86,
    pair("operation", "operation", _OPERATIONS),
    flag("timedOut", "time_out"),
    pair(
        "participationType", "participation_type",
        {
            0: "Local processor originated request", 1: "Local processor responded to request",
            2: "Local processor observed", 3: "Generic",
        },
    ),
    pair("addressSpace", "address_space", {0: "Memory Access", 1: "Reserved", 2: "I/O", 3: "Other Transaction"}),
)  # fmt: skip
_MS_CHECK = Shape(
    MsCheck,
    pair(
        "errorType", "error_type",
        dict(enumerate(("No Error", "Unclassified", "Microcode ROM Parity Error", "External Error", "FRC Error",
                        "Internal Unclassified"))),
        "Unknown (Processor Specific)",
    ),
    _X86[2:],
)  # fmt: skip
_CHECKS: dict[UUID, tuple[str, Shape]] = {
    ia32x64.CACHE_CHECK: ("Cache Check Error", _CACHE_CHECK),
    ia32x64.TLB_CHECK: ("TLB Check Error", _TLB_CHECK),
    ia32x64.BUS_CHECK: ("Bus Check Error", _BUS_CHECK),
    ia32x64.MS_CHECK: ("MS Check Error", _MS_CHECK),
}
_IA32X64 = Shape(
    Ia32X64Head,
    number("processorErrorInfoNum", "error_information_count"),
    number("processorContextInfoNum", "context_count"),
    number("localAPICID", "local_apic_id"),
    sub("cpuidInfo", "cpuid", Shape(CpuId, numbers("eax", "ebx", "ecx", "edx"))),
)
_INFORMATION = [
    number("targetAddressID", "target_id"),
    *numbers("requestor_id", "responder_id", "instruction_pointer"),
]
_X86_CONTEXTS = dict(
    enumerate(
        (
            "Unclassified Data", "MSR Registers", "32-bit Mode Execution Context", "64-bit Mode Execution Context",
            "FXSave Context", "32-bit Mode Debug Registers", "64-bit Mode Debug Registers", "Memory Mapper Registers",
        )
    )
)  # fmt: skip


def _same(kind: type[Struct], *without: str) -> list[Rule]:
    """The fields of a structure under their own names."""
    return [number(s.name, s.name) for s in kind.words.slots if s.name not in without]


def _table_register(value: bytes) -> int:
    return int.from_bytes(value, "little")


_IA32_REGISTERS = Shape(
    Ia32Registers,
    _same(Ia32Registers, "gdtr", "idtr"),
    *[Rule(n, n, _table_register, lambda v: v.to_bytes(8, "little").hex()) for n in ("gdtr", "idtr")],
)
_X64_REGISTERS = Shape(X64Registers, _same(X64Registers, "gdtr", "idtr", "rip"), number("eip", "rip"))


def write_ia32x64(body: bytes) -> dict[str, Any]:
    """IA32/X64 processor."""
    section = Ia32X64Processor.of_body(body)
    out = _IA32X64.write(section.head)
    out["processorErrorInfo"] = [_write_check(i) for i in section.error_information]
    out["processorContextInfo"] = [_write_x86_context(c) for c in section.contexts]
    return out


def _write_check(information: ia32x64.Ia32X64ErrorInformation) -> dict[str, Any]:
    name, shape = _CHECKS.get(information.structure_type, ("Unknown", None))
    out: dict[str, Any] = {"type": {"guid": str(information.structure_type), "name": name}}
    if information.check_information is not None and shape is not None:
        out["checkInfo"] = shape.write(information.check_information)
    return out | Shape(type(information), _INFORMATION).write(information)


def _write_x86_context(context: ProcessorContext) -> dict[str, Any]:
    head = context.head
    out: dict[str, Any] = {
        "registerContextType": {
            "value": int(head.register_context_type),
            "name": _X86_CONTEXTS.get(int(head.register_context_type), "Unknown (Reserved)"),
        },
        "registerArraySize": head.register_array_size,
        "msrAddress": head.msr_address,
        "mmRegisterAddress": head.mm_register_address,
    }
    first = context.registers[0] if context.registers else None
    if isinstance(first, Ia32Registers):
        out["registerArray"] = _IA32_REGISTERS.write(first)
    elif isinstance(first, X64Registers):
        halves = {f"{n}_{i}": int.from_bytes(getattr(first, n)[8 * i : 8 * i + 8], "little")
                  for n in ("gdtr", "idtr") for i in (0, 1)}  # fmt: skip
        out["registerArray"] = _X64_REGISTERS.write(first) | halves
    else:
        out["registerArray"] = {"data": to_base64(_array(context))}
    return out


def _array(context: Any) -> bytes:
    """The register array of a context."""
    return b"".join(r.encode() for r in context.registers) + bytes(context.data)


def read_ia32x64(plain: dict[str, Any]) -> bytes:
    """IA32/X64 processor."""
    parts = [_IA32X64.make(plain).encode()]
    for item in objects_in(plain, "processorErrorInfo"):
        guid = UUID(str(object_in(item, "type").get("guid")))
        kind = Ia32X64Processor.KINDS["error_information"]
        fields_ = Shape(CpuId, _INFORMATION).read(item) | {"structure_type": str(guid)}
        shape = _CHECKS.get(guid, ("", None))[1]
        if "checkInfo" in item and shape is not None:
            fields_["check_information"] = shape.read(item["checkInfo"])
        parts.append(kind.of_plain(fields_).encode())
    for item in objects_in(plain, "processorContextInfo"):
        parts.append(_read_x86_context(item))
    return b"".join(parts)


def _read_x86_context(item: dict[str, Any]) -> bytes:
    number_ = number_of(object_in(item, "registerContextType"), "value")
    registers = object_in(item, "registerArray")
    if number_ == 2 and "data" not in registers:
        array = _IA32_REGISTERS.make(registers).encode()
    elif number_ == 3 and "data" not in registers:
        halves = {n: b"".join(number_of(registers, f"{n}_{i}").to_bytes(8, "little") for i in (0, 1)).hex()
                  for n in ("gdtr", "idtr")}  # fmt: skip
        array = _X64_REGISTERS.make(registers, **halves).encode()
    else:
        array = of_base64(registers.get("data"))
    head = ProcessorContext.HEAD.of_plain(
        {
            "register_context_type": number_,
            "register_array_size": number_of(item, "registerArraySize"),
            "msr_address": number_of(item, "msrAddress", 0),
            "mm_register_address": number_of(item, "mmRegisterAddress", 0),
        }
    ).encode()
    return head + array + bytes(-(len(head) + len(array)) % STEP)


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
    *_COMMON,
    flag("corrected", "corrected"),
    flag("precisePC", "precise_pc"),
    flag("restartablePC", "restartable_pc"),
]
_ARM_CACHE = Shape(
    ArmCacheError,
    _ARM,
    pair("operation", "operation", _OPERATIONS | {7: "Eviction", 8: "Snooping", 9: "Snooped", 10: "Management"}),
)
_ARM_TLB = Shape(
    ArmTlbError,
    _ARM,
    pair(
        "operation", "operation",
        _OPERATIONS | {7: "Local Management Operation", 8: "External Management Operation"},
    ),
)  # fmt: skip
_ARM_BUS = Shape(
    ArmBusError,
    _ARM,
    pair("operation", "operation", _OPERATIONS),
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
    body: bytes, cls: type[ArmProcessor] = ArmProcessor211, names: Mapping[int, str] = _ERRORS
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
    return Shape(kind, _same(kind))


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
        out["registerArray"] = {"data": to_base64(_array(context))}
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


__all__ = ["PROCESSOR_GENERIC", "read_arm", "read_ia32x64", "write_arm", "write_ia32x64"]
