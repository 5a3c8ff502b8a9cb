"""libcper's shape of what processor sections share, and of the generic one (UEFI 2.10, N.2.4 and N.2.4.1)."""

from __future__ import annotations

from typing import Any

from cper.libcper.rules import Rule, Shape, bits, flag, number, numbers, pair, words
from cper.processor_generic import ProcessorGeneric
from cper.wire import Struct

ERRORS = {1: "Cache Error", 2: "TLB Error", 4: "Bus Error", 8: "Micro-Architectural Error"}
PROCESSOR_GENERIC = Shape(
    ProcessorGeneric,
    pair("processorType", "processor_type", {0: "IA32/X64", 1: "IA64", 2: "ARM"}),
    pair("processorISA", "processor_isa", {0: "IA32", 1: "IA64", 2: "X64", 3: "ARM A32/T32", 4: "ARM A64"}),
    pair("errorType", "error_type", {0: "Unknown", **ERRORS}),
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
OPERATIONS = dict(
    enumerate(
        ("Generic Error", "Generic Read", "Generic Write", "Data Read", "Data Write", "Instruction Fetch", "Prefetch")
    )
)
COMMON = [
    pair("transactionType", "transaction_type", _TRANSACTIONS),
    number("level", "level"),
    flag("processorContextCorrupt", "context_corrupt"),
]


def same(kind: type[Struct], *without: str) -> list[Rule]:
    """The fields of a structure under their own names."""
    return [number(s.name, s.name) for s in kind.words.slots if s.name not in without]


def array(context: Any) -> bytes:
    """The register array of a context."""
    return b"".join(r.encode() for r in context.registers) + bytes(context.data)


__all__ = ["COMMON", "ERRORS", "OPERATIONS", "PROCESSOR_GENERIC", "array", "same"]
