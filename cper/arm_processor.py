"""ARM Processor Error section (UEFI 2.10, N.2.4.4): header, error informations, register contexts, vendor bytes.

What the Type of an error information means changed twice while its version stayed 0: a number before UEFI 2.9A, bits 1
to 4 in 2.9A and 2.10, bits 0 to 3 in 2.10A and 2.11.  This is the second, which Linux 6.19 and the stable kernels read;
``arm_processor_types`` has the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self

import construct as c

from cper.arm_context import ArmContext
from cper.arm_error import ArmBusError, ArmCacheError, ArmTlbError
from cper.framed import FramedSection, Head, Kinds, Many, Upto
from cper.register_context import Contexts
from cper.wire import U8, U16, U32, U64, Bits, OpenFlags, Reserved, Struct, Valid, ValidationBits, Word, u8


class ArmErrorType(OpenFlags):
    """What failed (Type of an error information) as UEFI 2.9A and 2.10 number it."""

    CACHE = 1 << 1
    TLB = 1 << 2
    BUS = 1 << 3
    MICRO_ARCHITECTURE = 1 << 4


class ArmErrorFlags(OpenFlags):
    """How an error was captured (Flags of an error information)."""

    FIRST = 1 << 0
    LAST = 1 << 1
    PROPAGATED = 1 << 2
    OVERFLOW = 1 << 3
    """Errors were lost."""


class ArmRunningState(Struct, size=8):
    """Whether the processor runs (Running State, PSCI State)."""

    running_state: ClassVar[Word] = Word("I")
    running: Annotated[bool, Bits("running_state", 0, 1)] = False
    """It runs; then psci_state is 0."""
    psci_state: U32 = 0
    """PSCI state, where it does not run."""


class ArmProcessorHeader(Struct, size=40):
    """What precedes the error informations of an ARM Processor Error section."""

    validation_bits: ClassVar[Word] = ValidationBits("I")
    vendor_information_valid: Annotated[bool, Bits("validation_bits", 3, 4)] = False
    """Whether the vendor's bytes mean something."""
    error_information_count: U16 = 0
    """Error informations that follow."""
    context_information_count: U16 = 0
    """Register contexts that follow those."""
    section_length: U32 = 0
    """Bytes, of the whole section."""
    affinity_level: Annotated[U8 | None, Valid(1)] = None
    """The affinity level that the error applies to: 0 to 3."""
    reserved: ClassVar[Word] = Reserved(3)
    mpidr: Annotated[U64 | None, Valid(0)] = None
    """MPIDR_EL1 of the processor."""
    midr: U64 = 0
    """MIDR_EL1 of the processor."""
    running_state: Annotated[ArmRunningState | None, Valid(2)] = None
    """Whether the processor runs."""


class ArmErrorInformation(Struct, size=32):
    """One error of an ARM processor; its Error Information as a number, which only the vendor may understand."""

    version: U8 = 0
    length: U8 = 32
    """Bytes."""
    validation_bits: ClassVar[Word] = ValidationBits("H")
    type: Annotated[ArmErrorType, u8] = ArmErrorType(0)
    """What failed."""
    multiple_error: Annotated[U16 | None, Valid(0)] = None
    """0: one error, 1: several, else how many."""
    flags: Annotated[ArmErrorFlags | None, u8, Valid(1)] = None
    """How it was captured."""
    error_information: Annotated[U64 | None, Valid(2)] = None
    """What happened."""
    virtual_fault_address: Annotated[U64 | None, Valid(3)] = None
    """Virtual address that is associated with it."""
    physical_fault_address: Annotated[U64 | None, Valid(4)] = None
    """Physical address that is associated with it."""


class ArmCacheErrorInformation(ArmErrorInformation, size=32):
    """An error of a cache."""

    type: Annotated[ArmErrorType, u8] = ArmErrorType(ArmErrorType.CACHE)
    """What failed."""
    error_information: Annotated[ArmCacheError | None, Valid(2)] = None  # type: ignore[assignment]
    """What happened."""


class ArmTlbErrorInformation(ArmErrorInformation, size=32):
    """An error of a TLB."""

    type: Annotated[ArmErrorType, u8] = ArmErrorType(ArmErrorType.TLB)
    """What failed."""
    error_information: Annotated[ArmTlbError | None, Valid(2)] = None  # type: ignore[assignment]
    """What happened."""


class ArmBusErrorInformation(ArmErrorInformation, size=32):
    """An error of a bus."""

    type: Annotated[ArmErrorType, u8] = ArmErrorType(ArmErrorType.BUS)
    """What failed."""
    error_information: Annotated[ArmBusError | None, Valid(2)] = None  # type: ignore[assignment]
    """What happened."""


def error_informations(other: type[ArmErrorInformation], *named: type[ArmErrorInformation], mask: int) -> Kinds:
    """Error informations by their Type: ``named`` by their default's, ``other`` for any else; ``mask``: its bits."""
    at = other.at("type").offset

    def plain_key(value: Mapping[str, Any]) -> int:
        return other.raw_of_plain({"type": value.get("type", 0)})[at] & mask

    known = {int(kind.model_fields["type"].default) & mask: kind for kind in named}
    return Kinds(other, known, lambda body, place: body[place + at] & mask, plain_key)


def frame(error_information: Kinds) -> c.Construct:
    """The body, its error informations read so."""
    return c.Struct(
        "head" / Head(ArmProcessorHeader, "section_length"),
        "error_information" / Many(error_information, ArmProcessorHeader, "error_information_count", "section_length"),
        "contexts" / Contexts(ArmContext, "context_information_count", "section_length"),
        "vendor_information" / Upto("section_length"),
        "trailing" / Upto(),
    )


@dataclass(frozen=True)
class ArmProcessor(FramedSection[ArmProcessorHeader], guid="e19e3d16-bc11-11e4-9caa-c2051d5d46b0"):
    """Errors of an ARM processor.

    Contexts are padded to a multiple of 16 bytes; without padding, as Linux before 7.2 reads them, they are found too.
    """

    FRAME = frame(
        error_informations(
            ArmErrorInformation, ArmCacheErrorInformation, ArmTlbErrorInformation, ArmBusErrorInformation, mask=0b11110
        )
    )

    SHAPED_BY = MappingProxyType({
        "head": frozenset({"error_information_count", "context_information_count", "section_length"}),
        "error_information": frozenset({"version", "length", "type", "flags"}),
        "contexts.head": frozenset({"version", "register_context_type", "register_array_size"}),
    })  # fmt: skip

    error_information: tuple[ArmErrorInformation, ...] = ()
    """The errors."""
    contexts: tuple[ArmContext, ...] = ()
    """Registers of the processor."""
    vendor_information: bytes = b""
    """The vendor's bytes behind them, up to the section's length."""
    trailing: bytes = b""
    """Bytes behind what the length covers."""

    @classmethod
    def of(
        cls,
        error_information: Iterable[ArmErrorInformation],
        contexts: Iterable[ArmContext] = (),
        vendor_information: bytes = b"",
        **fields: Any,
    ) -> Self:
        """The section with these parts; ``fields`` are those of its head."""
        errors, registers = tuple(error_information), tuple(contexts)
        made = cls(ArmProcessorHeader(), errors, registers, vendor_information)
        counts = {
            "error_information_count": len(errors),
            "context_information_count": len(registers),
            "section_length": len(made.encode()),
            "vendor_information_valid": bool(vendor_information),
        }
        return cls(ArmProcessorHeader(**(counts | fields)), errors, registers, vendor_information)
