"""libcper's shape of the IA32/X64 Processor Error section (UEFI 2.10, N.2.4.2)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from cper import ia32x64
from cper.ia32x64 import CpuId, Ia32X64Head, Ia32X64Processor
from cper.ia32x64_check import BusCheck, CacheCheck, MsCheck, TlbCheck
from cper.ia32x64_context import Ia32Registers, ProcessorContext, X64Registers
from cper.libcper.processors import COMMON, OPERATIONS, array, same
from cper.libcper.rules import Rule, Shape, flag, number, number_of, numbers, of_base64, pair, sub, to_base64
from cper.plain import object_in, objects_in
from cper.register_context import STEP

_X86 = [
    *COMMON,
    flag("uncorrected", "uncorrected"),
    flag("preciseIP", "precise_ip"),
    flag("restartableIP", "restartable_ip"),
    flag("overflow", "overflow"),
]
_CACHE_CHECK = Shape(CacheCheck, _X86, pair("operation", "operation", OPERATIONS | {7: "Eviction", 8: "Snoop"}))
_TLB_CHECK = Shape(TlbCheck, _X86, pair("operation", "operation", OPERATIONS))
_BUS_CHECK = Shape(
    BusCheck,
    _X86,
    pair("operation", "operation", OPERATIONS),
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


def _table_register(value: bytes) -> int:
    return int.from_bytes(value, "little")


_IA32_REGISTERS = Shape(
    Ia32Registers,
    same(Ia32Registers, "gdtr", "idtr"),
    *[Rule(n, n, _table_register, lambda v: v.to_bytes(8, "little").hex()) for n in ("gdtr", "idtr")],
)
_X64_REGISTERS = Shape(X64Registers, same(X64Registers, "gdtr", "idtr", "rip"), number("eip", "rip"))


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
        out["registerArray"] = {"data": to_base64(array(context))}
    return out


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


__all__ = ["read_ia32x64", "write_ia32x64"]
