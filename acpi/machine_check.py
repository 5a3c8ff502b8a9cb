"""IA-32 machine-check error sources (ACPI 6.5, 18.3.2.1, 18.3.2.2 and 18.3.2.10), each with its list of banks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from acpi.error_source import NativeSource
from acpi.notification import HardwareErrorNotification
from cper.plain import members, number_in, objects_in
from cper.wire import (
    U8,
    U32,
    U64,
    EncodeError,
    OpenEnum,
    Reserved,
    Struct,
    TruncatedError,
    Word,
    u8,
    u16,
)
from cper.words import counted


class StatusDataFormat(OpenEnum):
    """How the bank's status register is laid out (18.3.2.1.1)."""

    IA32 = 0
    INTEL_64 = 1
    AMD64 = 2


class MachineCheckBank(Struct, size=28):
    """IA-32 Architecture Machine Check Bank (18.3.2.1.1)."""

    bank_number: U8
    """Number of the bank."""
    clear_status_on_initialization: U8 = 0
    """0: OSPM clears the status register at boot; 1: it does not."""
    status_data_format: Annotated[StatusDataFormat, u8] = StatusDataFormat.INTEL_64
    """How the status register is laid out."""
    reserved: ClassVar[Word] = Reserved(1)
    control_register: U32 = 0
    """MSR of the control register; 0: leave it alone."""
    control_data: U64 = 0
    """What OSPM writes into the control register."""
    status_register: U32 = 0
    """MSR of the status register."""
    address_register: U32 = 0
    """MSR of the address register."""
    misc_register: U32 = 0
    """MSR of the miscellaneous register."""


class MachineCheckException(NativeSource, size=40):
    """IA-32 Architecture Machine Check Exception (18.3.2.1), without its banks."""

    TYPE: ClassVar[int] = 0
    type: Annotated[Literal[0], u16] = 0
    global_capability_data: U64 = 0
    """What OSPM writes into IA32_MCG_CAP."""
    global_control_data: U64 = 0
    """What OSPM writes into IA32_MCG_CTL."""
    bank_count: U8 = 0
    """Banks that follow."""
    reserved2: ClassVar[Word] = Reserved(7)


class _NotifiedMachineCheck(NativeSource):
    """What corrected and deferred machine checks have in common; not a structure by itself."""

    notification: HardwareErrorNotification
    """How OSPM hears of an error."""
    bank_count: U8 = 0
    """Banks that follow."""
    reserved2: ClassVar[Word] = Reserved(3)


class CorrectedMachineCheck(_NotifiedMachineCheck, size=48):
    """IA-32 Architecture Corrected Machine Check (18.3.2.2), without its banks."""

    TYPE: ClassVar[int] = 1
    type: Annotated[Literal[1], u16] = 1


class DeferredMachineCheck(_NotifiedMachineCheck, size=48):
    """IA-32 Architecture Deferred Machine Check (18.3.2.10), without its banks."""

    TYPE: ClassVar[int] = 11
    type: Annotated[Literal[11], u16] = 11


MachineCheckHeader = MachineCheckException | CorrectedMachineCheck | DeferredMachineCheck

HEADERS: dict[int, type[MachineCheckHeader]] = {
    0: MachineCheckException,
    1: CorrectedMachineCheck,
    11: DeferredMachineCheck,
}
"""Source type to the fixed part."""


class MachineCheckSource(NamedTuple):
    """A machine-check source: its fixed part and its banks."""

    header: MachineCheckHeader
    banks: tuple[MachineCheckBank, ...] = ()

    @classmethod
    def of(cls, header: MachineCheckHeader, banks: Iterable[MachineCheckBank]) -> Self:
        """The source with these banks; the header's count is set right.  Raises ValueError for more than 255."""
        found = tuple(banks)
        if len(found) > 0xFF:
            raise ValueError(f"{len(found)} banks given, a source has at most 255")
        return cls(header.model_copy(update={"bank_count": len(found)}), found)

    @property
    def type(self) -> int:
        """Source type: 0, 1 or 11."""
        return self.header.type

    @property
    def source_id(self) -> int:
        """Names the source."""
        return self.header.source_id

    @property
    def SIZE(self) -> int:
        """Bytes on the wire, banks included."""
        return self.header.SIZE + MachineCheckBank.SIZE * len(self.banks)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Read the source at ``offset``.  Raises TruncatedError, DecodeError; offsets are those in ``data``."""
        kind = HEADERS.get(int.from_bytes(data[offset : offset + 2], "little"), MachineCheckException)
        header = kind.decode(data, offset)
        first, count = offset + kind.SIZE, header.bank_count
        if first + MachineCheckBank.SIZE * count > len(data):
            raise TruncatedError(
                f"{counted(count, 'bank needs', 'banks need')} {MachineCheckBank.SIZE * count} bytes, "
                f"{len(data) - first} given",
                structure=kind.__name__, path="bank_count", offset=offset + kind.at("bank_count").offset,
            )  # fmt: skip
        return cls(
            header, tuple(MachineCheckBank.decode(data, first + MachineCheckBank.SIZE * i) for i in range(count))
        )

    def encode(self) -> bytes:
        """The source's bytes.  Raises EncodeError where the header's count is not that of the banks."""
        if self.header.bank_count != len(self.banks):
            raise EncodeError(
                f"{counted(len(self.banks), 'bank')}, but the header says {self.header.bank_count}",
                structure=type(self.header).__name__, path="bank_count", offset=self.header.at("bank_count").offset,
            )  # fmt: skip
        return self.header.encode() + b"".join(bank.encode() for bank in self.banks)

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the source."""
        return {**self.header.plain(), "banks": [bank.plain() for bank in self.banks]}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The source that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        kind = HEADERS.get(number_in(plain, "type"))
        if kind is None:
            raise ValueError(f"'type': {plain.get('type')!r} is no machine-check source")
        header = kind.of_plain(members(plain, without=("banks",)))
        return cls(header, tuple(MachineCheckBank.of_plain(bank) for bank in objects_in(plain, "banks")))


__all__ = [
    "HEADERS", "CorrectedMachineCheck", "DeferredMachineCheck", "MachineCheckBank", "MachineCheckException",
    "MachineCheckHeader", "MachineCheckSource", "StatusDataFormat",
]  # fmt: skip
