"""IA32/X64 Processor Error section (UEFI 2.10, N.2.4.2): header, error informations and register contexts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

import construct as c

from cper.framed import FramedSection, Head, Kinds, Many, Upto
from cper.ia32x64_check import BusCheck, CacheCheck, MsCheck, TlbCheck
from cper.ia32x64_context import ProcessorContext
from cper.register_context import Contexts
from cper.wire import U64, Bits, Guid, Reserved, Struct, Valid, ValidationBits, Word


class CpuId(Struct, size=48):
    """What CPUID gave for leaf 1, each register in 64 bits (CPUID Info)."""

    eax: U64
    ebx: U64
    ecx: U64
    edx: U64
    reserved: ClassVar[Word] = Reserved(16)


class Ia32X64Head(Struct, size=64):
    """What precedes the error informations of an IA32/X64 Processor Error section."""

    validation_bits: ClassVar[Word] = ValidationBits("Q")
    error_information_count: Annotated[int, Bits("validation_bits", 2, 8)] = 0
    """Error informations that follow."""
    context_count: Annotated[int, Bits("validation_bits", 8, 14)] = 0
    """Register contexts that follow those."""
    local_apic_id: Annotated[U64 | None, Valid(0)] = None
    """Local APIC id of the processor."""
    cpuid: Annotated[CpuId | None, Valid(1)] = None
    """What CPUID says of it."""


class Ia32X64ErrorInformation(Struct):
    """One error of a processor; what its check information is, its structure type says.  Not a structure by itself."""

    structure_type: Guid
    """Kind of check information."""
    validation_bits: ClassVar[Word] = ValidationBits("Q")
    check_information: Annotated[Any, Valid(0)] = None
    """What happened."""
    target_id: Annotated[U64 | None, Valid(1)] = None
    """Target Identifier: the target's address."""
    requestor_id: Annotated[U64 | None, Valid(2)] = None
    """Requestor Identifier."""
    responder_id: Annotated[U64 | None, Valid(3)] = None
    """Responder Identifier."""
    instruction_pointer: Annotated[U64 | None, Valid(4)] = None
    """Where the processor was."""


CACHE_CHECK = UUID("a55701f5-e3ef-43de-ac72-249b573fad2c")
TLB_CHECK = UUID("fc06b535-5e1f-4562-9f25-0a3b9adb63c3")
BUS_CHECK = UUID("1cf3f8b3-c5b1-49a2-aa59-5eef92ffa63c")
MS_CHECK = UUID("48ab7f57-dc34-4f6c-a7d3-b0b5b0a74314")


class CacheErrorInformation(Ia32X64ErrorInformation, size=64):
    """An error of a cache."""

    structure_type: Guid = CACHE_CHECK
    check_information: Annotated[CacheCheck | None, Valid(0)] = None
    """What happened."""


class TlbErrorInformation(Ia32X64ErrorInformation, size=64):
    """An error of a TLB."""

    structure_type: Guid = TLB_CHECK
    check_information: Annotated[TlbCheck | None, Valid(0)] = None
    """What happened."""


class BusErrorInformation(Ia32X64ErrorInformation, size=64):
    """An error of a bus."""

    structure_type: Guid = BUS_CHECK
    check_information: Annotated[BusCheck | None, Valid(0)] = None
    """What happened."""


class MsErrorInformation(Ia32X64ErrorInformation, size=64):
    """An error that is specific to the micro-architecture."""

    structure_type: Guid = MS_CHECK
    check_information: Annotated[MsCheck | None, Valid(0)] = None
    """What happened."""


class OtherErrorInformation(Ia32X64ErrorInformation, size=64):
    """An error of a kind that has no name here."""

    check_information: Annotated[U64 | None, Valid(0)] = None
    """What happened."""


CHECKS: dict[str, UUID] = {"cache": CACHE_CHECK, "tlb": TLB_CHECK, "bus": BUS_CHECK, "ms": MS_CHECK}
"""Structure types by name."""


def _structure_type(value: Mapping[str, Any]) -> bytes:
    """Of JSON, as it is on the wire; nothing where it is wrong, which the structure will say."""
    try:
        return UUID(str(value.get("structure_type"))).bytes_le
    except ValueError:
        return b""


ERROR_INFORMATION = Kinds(
    OtherErrorInformation,
    {
        CACHE_CHECK.bytes_le: CacheErrorInformation,
        TLB_CHECK.bytes_le: TlbErrorInformation,
        BUS_CHECK.bytes_le: BusErrorInformation,
        MS_CHECK.bytes_le: MsErrorInformation,
    },
    lambda body, at: body[at : at + 16],
    _structure_type,
)
"""Error informations by their structure type."""


@dataclass(frozen=True)
class Ia32X64Processor(FramedSection[Ia32X64Head], guid="dc3ea0b0-a144-4797-b95b-53fa242b6e1d"):
    """Errors of an IA32 or X64 processor."""

    FRAME = c.Struct(
        "head" / Head(Ia32X64Head),
        "error_information" / Many(ERROR_INFORMATION, Ia32X64Head, "error_information_count"),
        "contexts" / Contexts(ProcessorContext, "context_count"),
        "trailing" / Upto(),
    )

    error_information: tuple[Ia32X64ErrorInformation, ...] = ()
    """The errors."""
    contexts: tuple[ProcessorContext, ...] = ()
    """Registers of the processor."""
    trailing: bytes = b""
    """Bytes behind the last context."""

    @classmethod
    def of(
        cls,
        error_information: Iterable[Ia32X64ErrorInformation] = (),
        contexts: Iterable[ProcessorContext] = (),
        **fields: Any,
    ) -> Self:
        """The section with these parts; ``fields`` are those of its head."""
        errors, registers = tuple(error_information), tuple(contexts)
        counts = {"error_information_count": len(errors), "context_count": len(registers)}
        return cls(Ia32X64Head(**(counts | fields)), errors, registers)
