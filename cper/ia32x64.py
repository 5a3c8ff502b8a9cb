"""IA32/X64 Processor Error section (UEFI 2.10, N.2.4.2): header, error informations and register contexts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

import construct as c

from cper.framed import FramedSection, Head, Many
from cper.ia32x64_check import BusCheck, CacheCheck, MsCheck, TlbCheck
from cper.ia32x64_context import Contexts, ProcessorContext
from cper.wire import U64, Bits, Guid, Reserved, Struct, Valid, ValidationBits, WireError, Word
from cper.wire._construct import Wire


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
_KINDS: dict[UUID, type[Ia32X64ErrorInformation]] = {
    CACHE_CHECK: CacheErrorInformation,
    TLB_CHECK: TlbErrorInformation,
    BUS_CHECK: BusErrorInformation,
    MS_CHECK: MsErrorInformation,
}


class _InformationKind:
    """Which kind JSON describes."""

    @classmethod
    def of_plain(cls, value: Mapping[str, Any], /) -> Struct:
        try:
            kind = _KINDS.get(UUID(str(value.get("structure_type"))), OtherErrorInformation)
        except ValueError:
            kind = OtherErrorInformation  # which says what is wrong
        return kind.of_plain(value)


class _ErrorInformations(Many):
    """Error informations, each of the kind that its structure type names; all have one size."""

    def _one(self, stream: Any, context: Any, path: str, index: int) -> Struct:
        at = stream.tell()
        kind = _KINDS.get(UUID(bytes_le=stream.read(16)), OtherErrorInformation)
        stream.seek(at)
        try:
            return Wire(kind)._parse(stream, context, path)
        except WireError as error:
            raise error.within(self.structure, f"{self.list}[{index}]") from None


@dataclass(frozen=True)
class Ia32X64Processor(FramedSection[Ia32X64Head], guid="dc3ea0b0-a144-4797-b95b-53fa242b6e1d"):
    """Errors of an IA32 or X64 processor."""

    HEAD = Ia32X64Head
    FRAME = c.Struct(
        "head" / Head(Ia32X64Head, "Ia32X64Processor"),
        "error_information"
        / _ErrorInformations(
            OtherErrorInformation, "Ia32X64Processor", "error_information", Ia32X64Head, "error_information_count",
            lambda head: int(head.error_information_count),
        ),
        "contexts" / Contexts("Ia32X64Processor", "contexts", "context_count"),
        "trailing" / c.GreedyBytes,
    )  # fmt: skip
    KINDS = {"head": Ia32X64Head, "error_information": _InformationKind, "contexts": ProcessorContext}

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
