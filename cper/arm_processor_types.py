"""ARM Processor Error section with the other meanings of Type: before UEFI 2.9A, and since 2.10A and 2.11 (N.2.4.4).

The bytes do not tell which is meant.  A class of these reads and writes for who knows; ``MODULES`` of ``cper.section``
may name it in place of ``ArmProcessor``, before a section is met.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

from cper.arm_processor import (
    ArmBusErrorInformation,
    ArmCacheErrorInformation,
    ArmErrorInformation,
    ArmProcessor,
    ArmTlbErrorInformation,
    error_informations,
    frame,
)
from cper.wire import OpenEnum, OpenFlags, u8


class ArmErrorType211(OpenFlags):
    """What failed as UEFI 2.10A and 2.11 number it, and libcper reads it."""

    CACHE = 1 << 0
    TLB = 1 << 1
    BUS = 1 << 2
    MICRO_ARCHITECTURE = 1 << 3


class ArmErrorTypeNumber(OpenEnum):
    """What failed as a number: UEFI before 2.9A, edk2, Linux before 6.19 without the change."""

    CACHE = 0
    TLB = 1
    BUS = 2
    MICRO_ARCHITECTURE = 3


class ArmErrorInformation211(ArmErrorInformation, size=32):
    """One error, Type as in UEFI 2.11."""

    type: Annotated[ArmErrorType211, u8] = ArmErrorType211(0)  # type: ignore[assignment]
    """What failed."""


class ArmCacheErrorInformation211(ArmCacheErrorInformation, size=32):
    """An error of a cache, Type as in UEFI 2.11."""

    type: Annotated[ArmErrorType211, u8] = ArmErrorType211(ArmErrorType211.CACHE)  # type: ignore[assignment]
    """What failed."""


class ArmTlbErrorInformation211(ArmTlbErrorInformation, size=32):
    """An error of a TLB, Type as in UEFI 2.11."""

    type: Annotated[ArmErrorType211, u8] = ArmErrorType211(ArmErrorType211.TLB)  # type: ignore[assignment]
    """What failed."""


class ArmBusErrorInformation211(ArmBusErrorInformation, size=32):
    """An error of a bus, Type as in UEFI 2.11."""

    type: Annotated[ArmErrorType211, u8] = ArmErrorType211(ArmErrorType211.BUS)  # type: ignore[assignment]
    """What failed."""


class ArmErrorInformationNumber(ArmErrorInformation, size=32):
    """One error, Type as a number."""

    type: Annotated[ArmErrorTypeNumber, u8] = ArmErrorTypeNumber.MICRO_ARCHITECTURE  # type: ignore[assignment]
    """What failed."""


class ArmCacheErrorInformationNumber(ArmCacheErrorInformation, size=32):
    """An error of a cache, Type as a number."""

    type: Annotated[ArmErrorTypeNumber, u8] = ArmErrorTypeNumber.CACHE  # type: ignore[assignment]
    """What failed."""


class ArmTlbErrorInformationNumber(ArmTlbErrorInformation, size=32):
    """An error of a TLB, Type as a number."""

    type: Annotated[ArmErrorTypeNumber, u8] = ArmErrorTypeNumber.TLB  # type: ignore[assignment]
    """What failed."""


class ArmBusErrorInformationNumber(ArmBusErrorInformation, size=32):
    """An error of a bus, Type as a number."""

    type: Annotated[ArmErrorTypeNumber, u8] = ArmErrorTypeNumber.BUS  # type: ignore[assignment]
    """What failed."""


@dataclass(frozen=True)
class ArmProcessor211(ArmProcessor):
    """Errors of an ARM processor, Type as in UEFI 2.11."""

    FRAME = frame(
        error_informations(
            ArmErrorInformation211, ArmCacheErrorInformation211, ArmTlbErrorInformation211, ArmBusErrorInformation211,
            mask=0b1111,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class ArmProcessorNumber(ArmProcessor):
    """Errors of an ARM processor, Type as a number."""

    FRAME = frame(
        error_informations(
            ArmErrorInformationNumber, ArmCacheErrorInformationNumber, ArmTlbErrorInformationNumber,
            ArmBusErrorInformationNumber, mask=0xFF,
        )
    )  # fmt: skip


P = TypeVar("P", bound=ArmProcessor)


def retyped(section: ArmProcessor, cls: type[P]) -> P:
    """The same section, each Type written as ``cls`` has it.  Raises ValueError for one that cannot be written so."""
    plain = section.plain()
    for information in plain["error_information"]:
        kinds = information["type"] if isinstance(information["type"], list) else [information["type"]]
        if cls is ArmProcessorNumber and len(kinds) != 1:
            raise ValueError(f"{len(kinds)} kinds of error are not one number")
        if not all(isinstance(kind, str) for kind in kinds):
            raise ValueError(f"{kinds} is not a kind of error that has a name")
        information["type"] = kinds[0] if cls is ArmProcessorNumber else kinds
    return cls.of_plain(plain)
